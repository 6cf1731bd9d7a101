//! Configuration: `regions.toml` read into `Settings`, with every mistake named by file, line and
//! cure. Flags and environment variables come in as [`Overrides`]; nothing here reads either.

mod limits;
mod links;
mod reader;
mod suggestion;
#[cfg(test)]
mod tests;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anabranch_crdt::ids::{ClusterId, CollectionName, RegionName};
use anabranch_crdt::policy::{Extent, PathPattern, PathRule, Policies, Policy};
use toml::Spanned;
use toml::de::DeValue;

pub(crate) use reader::ConfigError;
use reader::{Place, Section, Source};
pub(crate) use suggestion::closest;
pub(crate) use units::{parse_duration, parse_size};

use crate::settings::{
    Advertised, Joining, Limits, Neighbours, PkiPaths, RegionSettings, Settings,
};

/// The topology that is shipped with the program; `anabranch dev` runs it where there is no file.
pub(crate) const SHIPPED: &str = include_str!("../../../regions.toml");

/// What one `regions.toml` says.
#[derive(Debug, Clone)]
pub(crate) struct Topology {
    file: PathBuf,
    /// The cluster's name.
    pub(crate) name: String,
    /// The cluster's id.
    pub(crate) cluster: ClusterId,
    /// Every region, in the order of the file.
    pub(crate) regions: Vec<RegionSettings>,
    /// Policies by collection.
    pub(crate) collections: BTreeMap<CollectionName, Policies>,
    /// Limits of every node.
    pub(crate) limits: Limits,
    /// The directory of the certificates.
    pub(crate) pki: PathBuf,
    pki_place: Option<Place>,
}

/// What flags and environment variables change for one node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    /// Where to listen for HTTP.
    pub(crate) http: Option<SocketAddr>,
    /// Where to listen for other regions.
    pub(crate) quic: Option<SocketAddr>,
    /// Bytes of loaded documents.
    pub(crate) cache_bytes: Option<usize>,
    /// Nodes that are asked to take this one in.
    pub(crate) join: Vec<SocketAddr>,
    /// Where others reach the node.
    pub(crate) advertised: Advertised,
    /// The regions that one which no file names wants links with.
    pub(crate) peers: Neighbours,
}

impl Topology {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is wrong.
    pub(crate) fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            ConfigError::of_file(file, format!("cannot read this file: {error}")).help(
                "name the file with --config or ANABRANCH_CONFIG; `anabranch dev` runs without one",
            )
        })?;
        Self::parse(file, &text)
    }

    /// Reads a text; `file` is for messages and for what is relative to it.
    ///
    /// # Errors
    /// Something in the text is wrong.
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let source = Source { file, text };
        let root = source.parse()?;
        let root =
            Section { source, title: "this file".to_owned(), span: 0..0, table: root.get_ref() };
        root.only(&["cluster", "pki", "region", "limits", "collection"])?;
        let (name, cluster) = read_cluster(&root)?;
        let (pki, pki_place) = read_pki(&root)?;
        let (regions, region_bandwidth) = read_regions(&root)?;
        Ok(Self {
            file: file.to_owned(),
            name,
            cluster,
            regions,
            collections: read_collections(&root)?,
            limits: Limits { region_bandwidth, ..read_limits(&root)? },
            pki,
            pki_place,
        })
    }

    /// Returns the settings of one region's node.
    ///
    /// # Errors
    /// The file has no such region, or its certificate files are missing.
    pub(crate) fn settings(
        &self,
        region: &str,
        data: PathBuf,
        overrides: &Overrides,
    ) -> Result<Settings, ConfigError> {
        let name = self.region(region)?;
        let pki = self.certificates(&name)?;
        Ok(self.settings_with(name, data, overrides, pki))
    }

    /// Makes a topology that names no region, for a node that gets its own by gossip.
    pub(crate) fn of_nothing(cluster: ClusterId, pki: PathBuf) -> Self {
        Self {
            file: PathBuf::from("regions.toml"),
            name: cluster.to_string(),
            cluster,
            regions: Vec::new(),
            collections: BTreeMap::new(),
            limits: Limits::default(),
            pki,
            pki_place: None,
        }
    }

    /// Tells whether a region is named here.
    pub(crate) fn names(&self, region: &str) -> bool {
        self.regions.iter().any(|known| known.name.as_str() == region)
    }

    /// Returns the settings of a node whose region is not named here: flags say where it listens.
    ///
    /// # Errors
    /// A flag is missing, or nobody could dial the node; its certificate files are missing.
    pub(crate) fn unlisted(
        &self,
        region: &str,
        data: PathBuf,
        overrides: &Overrides,
    ) -> Result<Settings, ConfigError> {
        let wrong =
            |message: String, help: &str| ConfigError::of_file(&self.file, message).help(help);
        let name: RegionName = region.parse().map_err(|error| {
            wrong(format!("bad region '{region}': {error}"), "give it a name such as eu-west")
        })?;
        let Advertised { http, quic } = overrides.advertised;
        for (flag, listens, reached) in
            [("http", overrides.http, http), ("quic", overrides.quic, quic)]
        {
            let Some(listens) = listens else {
                let message = format!("no file says where {name} listens for {flag}");
                return Err(wrong(message, "say it with --http ADDRESS and --quic ADDRESS"));
            };
            if listens.ip().is_unspecified() && reached.is_none() {
                let message = format!("nobody can dial {listens}");
                return Err(wrong(
                    message,
                    "say with --advertise-http and --advertise-quic where \
                                           others reach this node",
                ));
            }
        }
        let pki = self.certificates(&name)?;
        Ok(self.settings_with(name, data, overrides, pki))
    }

    /// Returns the settings of one region's node, whose certificates are known already.
    pub(crate) fn settings_with(
        &self,
        region: RegionName,
        data: PathBuf,
        overrides: &Overrides,
        pki: PkiPaths,
    ) -> Settings {
        let mut regions = self.regions.clone();
        let unlisted = !regions.iter().any(|r| r.name == region);
        let mut advertised = overrides.advertised;
        if let Some(own) = regions.iter_mut().find(|r| r.name == region) {
            // Others know the addresses of the file; where the node listens is its own business.
            advertised.http = advertised.http.or(Some(own.http));
            advertised.quic = advertised.quic.or(Some(own.quic));
            own.http = overrides.http.unwrap_or(own.http);
            own.quic = overrides.quic.unwrap_or(own.quic);
        } else if let (Some(quic), Some(http)) = (overrides.quic, overrides.http) {
            let (name, peers) = (region.clone(), overrides.peers.clone());
            regions.push(RegionSettings { name, quic, http, peers });
        }
        let mut limits = self.limits.clone();
        limits.cache_bytes = overrides.cache_bytes.unwrap_or(limits.cache_bytes);
        Settings {
            cluster_name: self.name.clone(),
            cluster: self.cluster,
            region,
            regions,
            collections: self.collections.clone(),
            limits,
            data,
            pki,
            joining: Joining { ask: overrides.join.clone(), advertised, unlisted },
        }
    }

    fn region(&self, wanted: &str) -> Result<RegionName, ConfigError> {
        let found = self.regions.iter().find(|region| region.name.as_str() == wanted);
        found.map(|region| region.name.clone()).ok_or_else(|| {
            let names: Vec<&str> = self.regions.iter().map(|r| r.name.as_str()).collect();
            let all = format!("this file has {}", names.join(", "));
            let help = match closest(wanted, &names) {
                Some(name) => format!("did you mean '{name}'? ({all})"),
                None => all,
            };
            ConfigError::of_file(&self.file, format!("there is no region '{wanted}'")).help(help)
        })
    }

    fn certificates(&self, region: &RegionName) -> Result<PkiPaths, ConfigError> {
        let paths = crate::pki::paths(&self.pki, region.as_str());
        let dir = self.pki.display();
        let init = format!("anabranch pki init --cluster-id {} --dir {dir}", self.cluster);
        let issue = format!("anabranch pki issue --region {region} --dir {dir}");
        let wanted = [
            ("the authority's certificate", &paths.authority, init),
            ("the certificate", &paths.certificate, issue.clone()),
            ("the key", &paths.key, issue),
        ];
        for (what, path, command) in wanted {
            if !path.is_file() {
                let message = format!("{what} of {region} is missing: {}", path.display());
                let error = match &self.pki_place {
                    Some(place) => ConfigError::at(&self.file, place.clone(), message),
                    None => ConfigError::of_file(&self.file, message),
                };
                let help = format!("make it with `{command}`, or say under [pki] where it is");
                return Err(error.help(help));
            }
        }
        Ok(paths)
    }
}

fn read_cluster(root: &Section<'_>) -> Result<(String, ClusterId), ConfigError> {
    let value = root.optional("cluster").ok_or_else(|| {
        root.source
            .error(&root.span, "there is no [cluster] section")
            .help("add [cluster] with a name and an id (a UUID, such as `uuidgen` prints)")
    })?;
    let section = Section::new(root.source, "[cluster]", value)?;
    section.only(&["name", "id"])?;
    let name = section.text("name", "demo")?;
    if name.get_ref().trim().is_empty() {
        return Err(root
            .source
            .error(&name.span(), "the cluster's name is empty")
            .help("give it a name that people will recognise in logs"));
    }
    let id = section.parse::<ClusterId>("id", "6f0c3e52-8a4d-4c1b-9c0e-2f7b51d9a3e4")?;
    Ok(((*name.get_ref()).to_owned(), id.into_inner()))
}

fn read_pki(root: &Section<'_>) -> Result<(PathBuf, Option<Place>), ConfigError> {
    let base = root.source.file.parent().unwrap_or(Path::new(""));
    let Some(value) = root.optional("pki") else {
        return Ok((base.join("pki"), None));
    };
    let section = Section::new(root.source, "[pki]", value)?;
    section.only(&["dir"])?;
    let dir = section.text("dir", "pki")?;
    Ok((base.join(dir.get_ref()), Some(root.source.place(&dir.span()))))
}

fn read_regions(root: &Section<'_>) -> Result<(Vec<RegionSettings>, Caps), ConfigError> {
    let example = "add [[region]] with a name, a quic address and an http address";
    let value = root.optional("region").ok_or_else(|| {
        root.source.error(&root.span, "there is no [[region]] section").help(example)
    })?;
    let list = value.get_ref().as_array().ok_or_else(|| {
        root.source
            .error(&value.span(), "a region is written with two brackets: [[region]]")
            .help(example)
    })?;
    let mut seen = Seen::default();
    let regions = list.iter().map(|value| read_region(root.source, value, &mut seen));
    let regions = regions.collect::<Result<Vec<_>, _>>()?;
    links::check(root.source, list, &regions)?;
    Ok((regions, seen.bandwidth))
}

/// Bytes per second that may go to a region.
type Caps = BTreeMap<RegionName, u64>;

/// Names and addresses that are taken, with the line that took them, and the caps of regions.
#[derive(Default)]
struct Seen {
    names: BTreeMap<RegionName, usize>,
    addresses: BTreeMap<(&'static str, SocketAddr), usize>,
    bandwidth: Caps,
}

fn read_region<'a>(
    source: Source<'a>,
    value: &'a Spanned<DeValue<'a>>,
    seen: &mut Seen,
) -> Result<RegionSettings, ConfigError> {
    let section = Section::new(source, "[[region]]", value)?;
    section.only(&["name", "quic", "http", "peers", "bandwidth"])?;
    let name = section.parse::<RegionName>("name", "eu-west")?;
    let line = source.line(&name.span());
    if let Some(first) = seen.names.insert(name.get_ref().clone(), line) {
        return Err(source
            .error(&name.span(), format!("there are two regions '{}'", name.get_ref()))
            .help(format!("the first is on line {first}; give this one another name")));
    }
    let quic = read_address(&section, "quic", "127.0.0.1:4101", seen)?;
    let http = read_address(&section, "http", "127.0.0.1:3031", seen)?;
    let peers = links::read(&section, name.get_ref())?;
    if let Some(cap) = limits::bandwidth(&section)? {
        seen.bandwidth.insert(name.get_ref().clone(), cap);
    }
    Ok(RegionSettings { name: name.into_inner(), quic, http, peers })
}

fn read_address(
    section: &Section<'_>,
    key: &'static str,
    example: &str,
    seen: &mut Seen,
) -> Result<SocketAddr, ConfigError> {
    let source = section.source;
    let text = section.text(key, example)?;
    let complain = |message: String, help: String| source.error(&text.span(), message).help(help);
    let address: SocketAddr = text.get_ref().parse().map_err(|_| {
        complain(
            format!("bad {key} address '{}'", text.get_ref()),
            format!("write an IP address and a port, like  {key} = \"{example}\""),
        )
    })?;
    if address.port() == 0 {
        return Err(complain(
            format!("the {key} address has port 0"),
            "other regions dial this address: name the port".to_owned(),
        ));
    }
    if address.ip().is_unspecified() {
        return Err(complain(
            format!("nobody can dial {}", address.ip()),
            format!("write the address that others reach; to listen elsewhere use --{key}"),
        ));
    }
    let line = source.line(&text.span());
    if let Some(first) = seen.addresses.insert((key, address), line) {
        return Err(complain(
            format!("the {key} address {address} is taken twice"),
            format!("line {first} has it already; use another port"),
        ));
    }
    Ok(address)
}

fn read_limits(root: &Section<'_>) -> Result<Limits, ConfigError> {
    root.optional("limits").map_or_else(
        || Ok(Limits::default()),
        |value| limits::read(&Section::new(root.source, "[limits]", value)?),
    )
}

fn read_collections(root: &Section<'_>) -> Result<BTreeMap<CollectionName, Policies>, ConfigError> {
    let Some(value) = root.optional("collection") else {
        return Ok(BTreeMap::new());
    };
    let section = Section::new(root.source, "[collection.NAME]", value)?;
    let mut collections = BTreeMap::new();
    for (key, value) in section.table {
        let name: CollectionName = key.get_ref().parse().map_err(|error| {
            root.source
                .error(&key.span(), format!("bad collection name: {error}"))
                .help("rename the collection")
        })?;
        if name.is_reserved() {
            return Err(root
                .source
                .error(&key.span(), format!("the collection '{name}' is reserved"))
                .help("it holds the settings of the others; rename the collection"));
        }
        let title = format!("[collection.{name}]");
        let policies = read_policies(&Section::new(root.source, title, value)?)?;
        collections.insert(name, policies);
    }
    Ok(collections)
}

fn read_policies(section: &Section<'_>) -> Result<Policies, ConfigError> {
    section.only(&["policy", "paths", "regions"])?;
    let default = match section.optional_text("policy")? {
        Some(text) => read_policy(section.source, &text)?,
        None => Policy::default(),
    };
    let regions = read_order(section)?;
    let paths = match section.optional("paths") {
        None => Vec::new(),
        Some(value) => {
            let title = section.title.replace(']', ".paths]");
            let section = Section::new(section.source, title, value)?;
            let rule = |(key, value)| read_rule(&section, key, value);
            section.table.iter().map(rule).collect::<Result<_, _>>()?
        }
    };
    let policies = Policies::new(default, paths, regions);
    // What is wrong with the whole, and with no part of it.
    Policies::read(&policies.to_json()).map_err(|error| {
        section
            .source
            .error(&section.span, format!("{error}"))
            .help("add a line such as  regions = [\"eu-west\", \"us-east\"]")
    })
}

fn read_rule<'a>(
    section: &Section<'a>,
    key: &Spanned<impl AsRef<str>>,
    value: &'a Spanned<DeValue<'a>>,
) -> Result<PathRule, ConfigError> {
    let (source, name) = (section.source, key.get_ref().as_ref());
    let pattern: PathPattern = name.parse().map_err(|error| {
        source
            .error(&key.span(), format!("bad path: {error}"))
            .help("a path is a quoted JSON pointer, like  \"/population\" = \"lww\"")
    })?;
    if value.get_ref().as_table().is_none() {
        let policy = read_policy(source, &section.text_of(name, value)?)?;
        return Ok(PathRule { pattern, policy, extent: Extent::Parts });
    }
    let title = section.title.replace(']', &format!(".\"{name}\"]"));
    let rule = Section::new(source, title, value)?;
    rule.only(&["policy", "whole"])?;
    let policy = read_policy(source, &rule.text("policy", "lww")?)?;
    let extent = match rule.optional("whole") {
        None => Extent::Parts,
        Some(whole) => match whole.get_ref().as_bool() {
            Some(true) => Extent::Whole,
            Some(false) => Extent::Parts,
            None => {
                return Err(source
                    .error(&whole.span(), "'whole' is true or false")
                    .help("true takes the container at the path as one value"));
            }
        },
    };
    Ok(PathRule { pattern, policy, extent })
}

fn read_order(section: &Section<'_>) -> Result<Vec<RegionName>, ConfigError> {
    let Some(value) = section.optional("regions") else { return Ok(Vec::new()) };
    let source = section.source;
    let help = "write the names of regions, the first one first:  [\"eu-west\", \"us-east\"]";
    let list = value.get_ref().as_array().ok_or_else(|| {
        source.error(&value.span(), "'regions' must be a list of regions").help(help)
    })?;
    let mut regions: Vec<RegionName> = Vec::new();
    for entry in list.iter() {
        let text = section.text_of("regions", entry)?;
        let region: RegionName = text.get_ref().parse().map_err(|error| {
            source.error(&text.span(), format!("bad region: {error}")).help(help)
        })?;
        if regions.contains(&region) {
            let message = format!("region '{region}' is named twice");
            return Err(source.error(&text.span(), message).help(help));
        }
        regions.push(region);
    }
    Ok(regions)
}

fn read_policy(source: Source<'_>, text: &Spanned<&str>) -> Result<Policy, ConfigError> {
    text.get_ref().parse().map_err(|_| {
        let names = Policy::ALL.map(|policy| policy.to_string());
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let list = known.join(", ");
        let help = match closest(text.get_ref(), &known) {
            Some(word) => format!("did you mean '{word}'? (policies: {list})"),
            None => format!("policies: {list}"),
        };
        source.error(&text.span(), format!("unknown policy '{}'", text.get_ref())).help(help)
    })
}
