//! Tests of policies and of the settings that hold them.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

fn read(settings: Value) -> Policies {
    Policies::read(&settings).unwrap()
}

fn check_covers(pattern: &str, covered: &[&str], others: &[&str]) {
    let pattern: PathPattern = pattern.parse().unwrap();
    for text in covered {
        assert!(pattern.covers(&path(text)), "{pattern} does not cover {text}");
    }
    for text in others {
        assert!(!pattern.covers(&path(text)), "{pattern} covers {text}");
    }
}

#[test]
fn a_pattern_covers_its_path_and_what_is_inside() {
    check_covers("/a", &["/a", "/a/b", "/a/0/c"], &["", "/b", "/b/a", "/ab"]);
    check_covers("/a/*/c", &["/a/b/c", "/a/0/c/d"], &["/a/c", "/a/b", "/a/b/d"]);
    check_covers("/*", &["/a", "/*", "/a/b"], &[""]);
    check_covers("", &["", "/a"], &[]);
    check_covers("/a~1b", &["/a~1b"], &["/a/b"]);
}

#[test]
fn the_longest_pattern_holds_and_of_equal_ones_the_one_that_names_the_key() {
    let policies = read(json!({
        "paths": {"/a": "lww", "/a/*": "lww", "/a/b": "max", "/*/b/c": "min", "/a/*/c": "first"},
    }));
    for (text, policy) in [
        ("", Policy::Auto),
        ("/z", Policy::Auto),
        ("/a", Policy::Lww),
        ("/a/b", Policy::Max),
        ("/a/b/d", Policy::Max),
        ("/a/c", Policy::Lww),
        ("/a/b/c", Policy::First),
        ("/z/b/c", Policy::Min),
    ] {
        assert_eq!(policies.of(&path(text)), policy, "{text}");
    }
}

#[test]
fn the_outermost_container_that_is_one_value_holds_what_is_inside() {
    let policies = read(json!({"paths": {
        "/a/b": {"policy": "lww", "whole": true},
        "/a/b/c": {"policy": "max", "whole": true},
        "/d": "lww",
        "/items/*": {"policy": "first", "whole": true},
    }}));
    let whole = |text: &str| policies.whole(path(text).tokens()).map(|whole| whole.depth);
    assert_eq!(whole("/a/b/c/d"), Some(2));
    assert_eq!(whole("/a/b"), Some(2));
    assert_eq!(whole("/a"), None);
    assert_eq!(whole("/d/e"), None);
    assert_eq!(whole("/items/3/name"), Some(2));
    assert!(policies.has_wholes() && !Policies::default().has_wholes());
    assert!(!policies.same_wholes(&Policies::default()));
    let other = read(json!({"policy": "max", "paths": {
        "/a/b": {"policy": "min", "whole": true},
        "/a/b/c": {"policy": "min", "whole": true},
        "/items/*": {"policy": "min", "whole": true},
    }}));
    assert!(policies.same_wholes(&other));
}

#[test]
fn regions_stand_in_the_order_of_the_settings() {
    let policies = read(json!({"policy": "region-priority", "regions": ["eu-west", "us-east"]}));
    let leader =
        |region: &str| policies.priority(Origin::of_region(&region.parse().unwrap(), [9; 16]));
    assert_eq!([leader("eu-west"), leader("us-east"), leader("ap-south")], [0, 1, 2]);
}

#[test]
fn a_version_names_the_content() {
    let one = read(json!({"policy": "lww", "paths": {"/a": "max", "/b": "min"}}));
    let same = read(
        json!({"paths": {"/b": "min", "/a": {"policy": "max", "whole": false}}, "policy": "lww"}),
    );
    let other = read(json!({"policy": "lww", "paths": {"/a": "max"}}));
    assert_eq!(one.version(), same.version());
    assert_ne!(one.version(), other.version());
    assert_eq!(one.version().to_string().len(), 16);
    assert_eq!(one.version().to_string().parse(), Ok(one.version()));
    for default in [json!({}), json!({"policy": "auto"}), json!({"paths": {}})] {
        assert_eq!(read(default).version().to_string(), "default");
    }
    assert_eq!("default".parse(), Ok(PolicyVersion::default()));
    assert!("0000000000000000".parse::<PolicyVersion>().is_err());
}

#[test]
fn what_cannot_be_read_is_named() {
    let refusal = "last".parse::<Policy>().unwrap_err().to_string();
    assert!(refusal.starts_with("'last' is no policy: write auto, lww"), "{refusal}");
    for text in ["a", "a/b", "/~", "/~2"] {
        let refusal = text.parse::<PathPattern>().unwrap_err().to_string();
        assert!(refusal.starts_with(&format!("'{text}' is no path")), "{refusal}");
    }
    for (settings, words) in [
        (json!([]), "settings are a JSON object"),
        (json!({"polices": "lww"}), "unknown setting 'polices': there are policy, paths, regions"),
        (json!({"policy": 3}), "a policy is text"),
        (json!({"policy": "newest"}), "'newest' is no policy"),
        (json!({"paths": ["/a"]}), "'paths' is an object"),
        (json!({"paths": {"a": "lww"}}), "'a' is no path"),
        (json!({"paths": {"/a": {"whole": true}}}), "'/a' is a policy, or"),
        (json!({"paths": {"/a": {"policy": "lww", "whole": 1}}}), "'/a' is a policy, or"),
        (json!({"paths": {"/a": {"policy": "lww", "x": 1}}}), "'/a' is a policy, or"),
        (json!({"regions": "eu"}), "'regions' is a list"),
        (json!({"regions": ["eu west"]}), "a region name is made of"),
        (json!({"regions": ["eu", "eu"]}), "region 'eu' is named twice"),
        (json!({"policy": "region-priority"}), "region-priority needs 'regions'"),
        (json!({"paths": {"/a": "region-priority"}}), "region-priority needs 'regions'"),
    ] {
        let refusal = Policies::read(&settings).unwrap_err().to_string();
        assert!(refusal.contains(words), "{settings}: {refusal}");
    }
}

proptest! {
    #[test]
    fn settings_are_read_as_written(
        rules in vec((vec(any::<String>(), 0..4), 0..7_usize, any::<bool>()), 0..5),
        default in 0..7_usize,
    ) {
        let rule = |(tokens, policy, whole): &(Vec<String>, usize, bool)| PathRule {
            pattern: PathPattern(tokens.clone()),
            policy: Policy::ALL[*policy],
            extent: if *whole { Extent::Whole } else { Extent::Parts },
        };
        let mut rules: Vec<_> = rules.iter().map(rule).collect();
        rules.sort_by(|one, other| one.pattern.cmp(&other.pattern));
        rules.dedup_by(|one, other| one.pattern == other.pattern);
        let regions = vec!["eu-west".parse().unwrap()];
        let policies = Policies::new(Policy::ALL[default], rules, regions);
        prop_assert_eq!(Policies::read(&policies.to_json()), Ok(policies));
    }

    #[test]
    fn every_prefix_of_a_path_covers_it_with_any_stars(
        tokens in vec(("[abc]", any::<bool>()), 0..6), inside in vec("[abc*]", 0..3),
    ) {
        let starred = tokens.iter().map(|(token, star)| if *star { "*" } else { token });
        let pattern = PathPattern(starred.map(str::to_owned).collect());
        let path: Vec<_> = tokens.into_iter().map(|(token, _)| token).chain(inside).collect();
        prop_assert!(pattern.covers(&Path::from(path)));
    }

    #[test]
    fn a_path_that_no_pattern_covers_has_the_default(tokens in vec("[abc]", 0..4)) {
        let exceptions = read(json!({"policy": "lww", "paths": {"/d": "auto", "/*/d": "auto"}}));
        prop_assert_eq!(exceptions.of(&Path::from(tokens)), Policy::Lww);
    }
}
