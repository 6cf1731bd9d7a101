use std::path::Path;

use anabranch_crdt::edit;

use super::*;

const GOOD: &str = r#"
[cluster]
name = "demo"
id = "6f0c3e52-8a4d-4c1b-9c0e-2f7b51d9a3e4"

[[region]]
name = "us-east"
quic = "127.0.0.1:4101"
http = "127.0.0.1:3031"

[[region]]
name = "eu-west"
quic = "127.0.0.1:4102"
http = "127.0.0.1:3032"
"#;

fn parse(text: &str) -> Result<Topology, ConfigError> {
    Topology::parse(Path::new("etc/regions.toml"), text)
}

/// Replaces one piece of the good file, so that exactly one thing is wrong with it.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "the good file has no {from:?}");
    GOOD.replacen(from, to, 1)
}

fn plus(more: &str) -> String {
    format!("{GOOD}{more}")
}

#[test]
fn the_shipped_file_is_the_three_regions_with_default_limits() {
    let topology = Topology::parse(Path::new("regions.toml"), SHIPPED).unwrap();
    let regions: Vec<String> = topology
        .regions
        .iter()
        .map(|region| format!("{} {} {}", region.name, region.quic, region.http))
        .collect();
    assert_eq!(
        regions,
        [
            "us-east 127.0.0.1:4101 127.0.0.1:3031",
            "eu-west 127.0.0.1:4102 127.0.0.1:3032",
            "ap-south 127.0.0.1:4103 127.0.0.1:3033",
        ]
    );
    assert_eq!(topology.limits, Limits::default(), "the file says that these are the defaults");
    let cities = &topology.collections[&"cities".parse().unwrap()];
    let policy = |path: &str| cities.of(&path.parse::<edit::Path>().unwrap());
    assert_eq!(policy("/population"), Policy::Lww);
    assert_eq!(policy("/mayors/3/since"), Policy::Lww);
    assert_eq!(policy("/name"), Policy::Auto);
}

/// Three regions, of which some name their peers.
fn three(peers: [&str; 3]) -> Result<Topology, ConfigError> {
    let region = |(number, (name, peers)): (usize, (&str, &str))| {
        let peers = if peers.is_empty() { String::new() } else { format!("peers = {peers}\n") };
        format!(
            "[[region]]\nname = \"{name}\"\nquic = \"127.0.0.1:41{number}\"\n\
             http = \"127.0.0.1:30{number}\"\n{peers}"
        )
    };
    let regions = (10..).zip(["a", "b", "c"].into_iter().zip(peers)).map(region);
    let cluster = GOOD.split("[[region]]").next().unwrap();
    parse(&format!("{cluster}{}", regions.collect::<String>()))
}

#[test]
fn peers_make_chains_and_hubs() {
    let hub = three(["[\"b\"]", "", "[\"b\"]"]).unwrap();
    let name = |name: &str| name.parse::<RegionName>().unwrap();
    assert!(
        hub.regions[0].peers.contains(&name("b")) && !hub.regions[0].peers.contains(&name("c"))
    );
    assert_eq!(hub.regions[1].peers, Neighbours::All, "nothing said is everybody");
}

#[test]
fn a_topology_that_falls_apart_is_refused_with_its_parts() {
    let split = three(["[\"b\"]", "[\"a\"]", ""]).unwrap_err().to_string();
    assert!(split.contains("'peers' split the regions into 2 parts"), "{split}");
    assert!(split.contains("a, b | c"), "{split}");
    let one_sided = three(["[\"b\"]", "[\"c\"]", ""]).unwrap_err().to_string();
    assert!(one_sided.contains("a | b, c"), "a link needs both: {one_sided}");
}

#[test]
fn every_mistake_is_named_by_line_and_cure() {
    let cases: &[(String, &str, &str, &str)] = &[
        (with("name = \"demo\"", "name = "), "3:", "string", "TOML"),
        (with("[cluster]", "[clster]"), "2:2", "unknown key 'clster'", "did you mean 'cluster'"),
        (with("http =", "htp ="), "9:1", "unknown key 'htp' in [[region]]", "did you mean 'http'"),
        (plus("[pki]\npath = \"x\"\n"), "16:1", "unknown key 'path' in [pki]", "known here: dir"),
        (with("name = \"demo\"", "name = \" \""), "3:8", "name is empty", "give it a name"),
        (with("name = \"demo\"", "name = 7"), "3:8", "must be a string", "double quotes"),
        (with("name = \"demo\"\n", ""), "2:1", "[cluster] has no 'name'", "name = \"demo\""),
        (with("6f0c3e52", "6f0c"), "4:6", "no cluster id", "id = \""),
        ("[[region]]\n".to_owned(), "1:1", "no [cluster] section", "uuidgen"),
        (
            GOOD.split("[[region]]").next().unwrap().to_owned(),
            "1:1",
            "no [[region]] section",
            "add [[region]]",
        ),
        (
            format!("{}[region]\nname = \"a\"\n", GOOD.split("[[region]]").next().unwrap()),
            "6:1",
            "two brackets",
            "add [[region]]",
        ),
        (with("\"eu-west\"", "\"us-east\""), "12:8", "two regions 'us-east'", "line 7"),
        (with("\"eu-west\"", "\"eu west\""), "12:8", "bad name", "eu-west"),
        (with(":4102", ":4101"), "13:8", "127.0.0.1:4101 is taken twice", "line 8"),
        (with(":3032", ":3031"), "14:8", "127.0.0.1:3031 is taken twice", "line 9"),
        (with("127.0.0.1:4102", "localhost:4102"), "13:8", "bad quic address", "IP address"),
        (with("127.0.0.1:3032", "127.0.0.1"), "14:8", "bad http address", "and a port"),
        (with(":4102", ":0"), "13:8", "port 0", "name the port"),
        (with("127.0.0.1:4102", "0.0.0.0:4102"), "13:8", "nobody can dial", "--quic"),
        (with("quic = \"127.0.0.1:4102\"\n", ""), "11:", "[[region]] has no 'quic'", "add a line"),
        (plus("peers = \"us-east\"\n"), "15:9", "must be a list", "peers = ["),
        (plus("peers = [7]\n"), "15:10", "must be a string", "double quotes"),
        (plus("peers = [\"us east\"]\n"), "15:10", "bad region", "peers = ["),
        (plus("peers = [\"eu-west\"]\n"), "15:10", "its own peer", "other regions"),
        (plus("peers = [\"us-est\"]\n"), "15:10", "no region 'us-est'", "did you mean 'us-east'"),
        (
            plus("peers = [\"us-east\", \"us-east\"]\n"),
            "15:21",
            "'us-east' is named twice",
            "every region once",
        ),
        (plus("peers = []\n"), "15:9", "into 2 parts", "us-east | eu-west"),
        (plus("[limits]\ndocumnt = 1\n"), "16:1", "unknown key 'documnt'", "'document'"),
        (plus("[limits]\ndocument = \"4 megs\"\n"), "16:12", "'megs' is no unit", "MiB"),
        (
            plus("[limits]\ndocument = 1\n"),
            "16:12",
            "'document' is too small",
            "from 1KiB to 64MiB",
        ),
        (plus("[limits]\nnesting = 129\n"), "16:11", "'nesting' is too great", "from 1 to 128"),
        (plus("[limits]\nnesting = \"deep\"\n"), "16:11", "whole number", "from 1 to 128"),
        (plus("[limits]\nnesting = -1\n"), "16:11", "whole number", "from 1 to 128"),
        (plus("[limits]\nsession_wait = 5\n"), "16:16", "duration such as", "to 60s"),
        (plus("[limits]\nsession_wait = \"5\"\n"), "16:16", "has no unit", "write 5ms"),
        (plus("[limits]\nclock_skew = \"2min\"\n"), "16:14", "too great", "from 1ms to 60s"),
        (plus("[limits]\ndocument = \"16MiB\"\n"), "16:12", "than 'body' (8MiB)", "raise 'body'"),
        (plus("[limits]\nbody = \"128MiB\"\n"), "16:8", "than 'in_flight'", "lower 'body'"),
        (plus("limits = 3\n"), "15:1", "unknown key 'limits' in [[region]]", "known here"),
    ];
    check_mistakes(cases);
}

#[test]
fn every_mistake_in_a_collection_is_named_too() {
    check_mistakes(&[
        (plus("[collection.c]\npolicy = \"lw\"\n"), "16:10", "policy 'lw'", "did you mean 'lww'"),
        (plus("[collection.c]\npolicy = \"newest\"\n"), "16:10", "policy 'newest'", "auto, lww"),
        (plus("[collection.c]\npaths = 1\n"), "16:9", "must be a section", "[collection.c.paths]"),
        (plus("[collection.c.paths]\nx = \"lww\"\n"), "16:1", "bad path", "JSON pointer"),
        (plus("[collection.c.paths]\n\"/x\" = 1\n"), "16:8", "must be a string", "quotes"),
        (
            plus("[collection.c.paths]\n\"/x\" = {whole = true}\n"),
            "16:8",
            "[collection.c.paths.\"/x\"] has no 'policy'",
            "policy = \"lww\"",
        ),
        (
            plus("[collection.c.paths]\n\"/x\" = {policy = \"lww\", whole = 1}\n"),
            "16:33",
            "'whole' is true or false",
            "as one value",
        ),
        (
            plus("[collection.c.paths]\n\"/x\" = {policy = \"lww\", parts = 1}\n"),
            "16:25",
            "unknown key 'parts'",
            "policy, whole",
        ),
        (plus("[collection.c]\nregions = \"a\"\n"), "16:11", "a list of regions", "us-east"),
        (plus("[collection.c]\nregions = [\"a b\"]\n"), "16:12", "bad region", "us-east"),
        (plus("[collection.c]\nregions = [\"a\", \"a\"]\n"), "16:17", "twice", "us-east"),
        (plus("[collection.c]\npolicy = \"region-priority\"\n"), "15:1", "needs 'regions'", "add"),
        (plus("[collection._collections]\n"), "15:13", "is reserved", "rename"),
        (plus("[collection.\"ä\"]\n"), "15:13", "bad collection name", "rename"),
    ]);
}

/// Checks where each text is wrong, what is said about it, and which cure is named.
fn check_mistakes(cases: &[(String, &str, &str, &str)]) {
    for (text, place, message, cure) in cases {
        let error = parse(text).expect_err(message).to_string();
        assert!(
            error.starts_with(&format!("etc/regions.toml:{place}")),
            "expected line and column {place} in:\n{error}"
        );
        assert!(error.contains(message), "expected {message:?} in:\n{error}");
        assert!(error.contains(cure), "expected {cure:?} in:\n{error}");
    }
}

#[test]
fn an_error_shows_the_line_and_underlines_the_mistake() {
    let error = parse(&with("http =", "htp =")).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(
        lines,
        [
            "etc/regions.toml:9:1: unknown key 'htp' in [[region]]",
            "    9 | htp = \"127.0.0.1:3031\"",
            "      | ^^^",
            "  help: did you mean 'http'? (known here: name, quic, http, peers, bandwidth)",
        ]
    );
}

#[test]
fn limits_and_paths_are_taken_over() {
    let topology = parse(&plus(
        "[limits]\ndocument = \"1MiB\"\ncache = 1048576\nsession_wait = \"250ms\"\n\
         [collection.c]\npolicy = \"lww\"\n[collection.c.paths]\n\"/b\" = \"auto\"\n\"/*\" = \"max\"\n",
    ))
    .unwrap();
    let limits = &topology.limits;
    assert_eq!((limits.document_bytes, limits.cache_bytes), (1 << 20, 1 << 20));
    assert_eq!(limits.session_wait, std::time::Duration::from_millis(250));
    let policies = &topology.collections[&"c".parse().unwrap()];
    let of = |path: &str| policies.of(&path.parse().unwrap());
    assert_eq!([of("/b"), of("/a"), of("")], [Policy::Auto, Policy::Max, Policy::Lww]);
}

#[test]
fn wholes_and_orders_of_regions_are_taken_over() {
    let topology = parse(&plus(
        "[collection.c]\npolicy = \"region-priority\"\nregions = [\"eu-west\", \"us-east\"]\n\
         [collection.c.paths]\n\"/address\" = { policy = \"lww\", whole = true }\n\
         \"/name\" = { policy = \"max\" }\n",
    ))
    .unwrap();
    let expected = Policies::read(&serde_json::json!({
        "policy": "region-priority",
        "regions": ["eu-west", "us-east"],
        "paths": {"/address": {"policy": "lww", "whole": true}, "/name": "max"},
    }));
    assert_eq!(topology.collections[&"c".parse().unwrap()], expected.unwrap());
}

#[test]
fn an_unknown_region_is_answered_with_the_known_ones() {
    let topology = parse(GOOD).unwrap();
    let error = topology.settings("eu-wst", "data".into(), &Overrides::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "etc/regions.toml: there is no region 'eu-wst'\n  help: did you mean 'eu-west'? \
         (this file has us-east, eu-west)"
    );
}

#[test]
fn missing_certificates_are_answered_with_the_command_that_makes_them() {
    let topology = parse(&plus("[pki]\ndir = \"nowhere\"\n")).unwrap();
    let error = topology.settings("eu-west", "data".into(), &Overrides::default()).unwrap_err();
    let error = error.to_string();
    assert!(error.starts_with("etc/regions.toml:16:7: "), "{error}");
    assert!(error.contains("etc/nowhere"), "{error}");
    assert!(
        error.contains(
            "`anabranch pki init --cluster-id 6f0c3e52-8a4d-4c1b-9c0e-2f7b51d9a3e4 --dir"
        ),
        "{error}"
    );
}

#[test]
fn the_certificates_are_beside_the_file_unless_it_says_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("regions.toml");
    std::fs::write(&file, GOOD).unwrap();
    let pki = crate::pki::paths(&folder.path().join("pki"), "eu-west");
    std::fs::create_dir(folder.path().join("pki")).unwrap();
    for (present, path) in [&pki.authority, &pki.certificate, &pki.key].into_iter().enumerate() {
        let topology = Topology::load(&file).unwrap();
        let error = topology.settings("eu-west", "d".into(), &Overrides::default()).unwrap_err();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(error.to_string().contains(name), "{present} files are there: {error}");
        std::fs::write(path, "").unwrap();
    }
    let topology = Topology::load(&file).unwrap();
    let settings = topology.settings("eu-west", "d".into(), &Overrides::default()).unwrap();
    assert_eq!(settings.pki, pki);
}

#[test]
fn a_file_that_is_not_there_is_an_error_with_a_cure() {
    let error = Topology::load(Path::new("no/such/regions.toml")).unwrap_err().to_string();
    assert!(error.starts_with("no/such/regions.toml: cannot read this file"), "{error}");
    assert!(error.contains("--config"), "{error}");
}

#[test]
fn flags_change_the_own_region_only() {
    let topology = parse(GOOD).unwrap();
    let overrides = Overrides {
        http: Some("127.0.0.1:9001".parse().unwrap()),
        quic: Some("0.0.0.0:9002".parse().unwrap()),
        cache_bytes: Some(7 << 20),
        ..Overrides::default()
    };
    let region: RegionName = "eu-west".parse().unwrap();
    let pki = crate::pki::paths(Path::new("pki"), "eu-west");
    let settings = topology.settings_with(region, "data".into(), &overrides, pki);
    assert_eq!(settings.regions[0], topology.regions[0]);
    assert_eq!(settings.regions[1].http.port(), 9001);
    assert_eq!(settings.regions[1].quic.to_string(), "0.0.0.0:9002");
    assert_eq!(settings.limits.cache_bytes, 7 << 20);
    let told = settings.joining.advertised;
    assert_eq!(
        told.quic,
        Some("127.0.0.1:4102".parse().unwrap()),
        "others dial what the file says"
    );
    assert!(!settings.joining.unlisted);
}

#[test]
fn a_node_that_no_file_names_says_by_flags_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let pki = crate::pki::paths(folder.path(), "mars");
    for file in [&pki.authority, &pki.certificate, &pki.key] {
        std::fs::write(file, "").unwrap();
    }
    let topology = || {
        Topology::of_nothing(
            "6f0c3e52-8a4d-4c1b-9c0e-2f7b51d9a3e4".parse().unwrap(),
            folder.path().into(),
        )
    };
    let mut flags =
        Overrides { join: vec!["10.0.0.1:4101".parse().unwrap()], ..Overrides::default() };
    let refused =
        |flags: &Overrides| topology().unlisted("mars", "d".into(), flags).unwrap_err().to_string();
    assert!(refused(&flags).contains("no file says where mars listens for http"));
    flags.http = Some("0.0.0.0:3034".parse().unwrap());
    flags.quic = Some("10.0.0.4:4104".parse().unwrap());
    assert!(refused(&flags).contains("nobody can dial 0.0.0.0:3034"));
    assert!(refused(&flags).contains("--advertise-http"));
    flags.advertised.http = Some("10.0.0.4:3034".parse().unwrap());
    let settings = topology().unlisted("mars", "d".into(), &flags).unwrap();
    assert!(settings.joining.unlisted);
    assert_eq!(settings.joining.ask, flags.join);
    assert_eq!(settings.regions.len(), 1);
}
