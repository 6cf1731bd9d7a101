//! Collisions of single fields.

use serde_json::{Value, json};

use super::super::story::{Ends, Kind};
use super::{
    WRITE_WINS, always, ap, document, eu, increment, remove, removed, row, set, shows, titled, us,
    wrote,
};

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        scalars(),
        delete_after_write(),
        delete_before_write(),
        types(),
        increments_against_an_overwrite(),
        counters_created_twice(),
        list_elements(),
        equal_values(),
    ]
}

fn scalars() -> Kind {
    let frame = |title| json!({"title": title, "x": 0});
    let base = || Some(json!("one"));
    Kind {
        name: "two values of one field",
        told: "An article is retitled in several regions at once.",
        before: document(&json!({"title": "one", "x": 0})),
        whole: None,
        sides: [
            eu(set("/title", json!("a"))),
            us(set("/title", json!("m"))),
            ap(set("/title", json!("z"))),
        ],
        two: Ends {
            shows: shows(["m", "a", "m", "m", "a", "m", "a"], frame),
            rows: vec![row(
                "/title",
                "value",
                base(),
                vec![wrote("eu", "a"), wrote("us", "m")],
                ["us", "eu", "us", "us", "eu", "us", "eu"],
                "open",
            )],
        },
        three: Ends {
            shows: shows(["m", "a", "z", "z", "a", "m", "z"], frame),
            rows: vec![row(
                "/title",
                "value",
                base(),
                vec![wrote("eu", "a"), wrote("us", "m"), wrote("ap", "z")],
                ["us", "eu", "ap", "ap", "eu", "us", "ap"],
                "open",
            )],
        },
    }
}

fn delete_after_write() -> Kind {
    let base = || Some(json!("one"));
    Kind {
        name: "a field deleted after it was written elsewhere",
        told: "One region removes the title, later than others have changed it.",
        before: document(&json!({"title": "one", "x": 0})),
        whole: None,
        sides: [eu(remove("/title")), us(set("/title", json!("m"))), ap(set("/title", json!("z")))],
        two: Ends {
            shows: shows(
                [Some("m"), None, Some("m"), Some("m"), Some("m"), Some("m"), None],
                titled,
            ),
            rows: vec![row(
                "/title",
                "delete",
                base(),
                vec![removed("eu"), wrote("us", "m")],
                ["us", "eu", "us", "us", "us", "us", "eu"],
                WRITE_WINS,
            )],
        },
        three: Ends {
            shows: shows(
                [Some("m"), None, Some("z"), Some("z"), Some("m"), Some("m"), Some("z")],
                titled,
            ),
            rows: vec![row(
                "/title",
                "delete",
                base(),
                vec![removed("eu"), wrote("us", "m"), wrote("ap", "z")],
                ["us", "eu", "ap", "ap", "us", "us", "ap"],
                "open",
            )],
        },
    }
}

fn delete_before_write() -> Kind {
    let base = || Some(json!("one"));
    Kind {
        name: "a field deleted before it was written elsewhere",
        told: "One region removes the title; another one, which does not know, changes it later.",
        before: document(&json!({"title": "one", "x": 0})),
        whole: None,
        sides: [eu(set("/title", json!("a"))), us(remove("/title")), ap(set("/title", json!("z")))],
        two: Ends {
            shows: shows(
                [Some("a"), Some("a"), None, Some("a"), Some("a"), Some("a"), Some("a")],
                titled,
            ),
            rows: vec![row(
                "/title",
                "delete",
                base(),
                vec![wrote("eu", "a"), removed("us")],
                ["eu", "eu", "us", "eu", "eu", "eu", "eu"],
                WRITE_WINS,
            )],
        },
        three: Ends {
            shows: shows(["a", "a", "z", "z", "a", "a", "z"].map(Some), titled),
            rows: vec![row(
                "/title",
                "delete",
                base(),
                vec![wrote("eu", "a"), removed("us"), wrote("ap", "z")],
                ["eu", "eu", "ap", "ap", "eu", "eu", "ap"],
                "open",
            )],
        },
    }
}

fn types() -> Kind {
    let object = || json!({"deep": [1]});
    let frame = |v: Value| json!({"v": v});
    let base = || Some(json!(1));
    Kind {
        name: "an object against a number",
        told: "A field becomes an object in one region, another number or a text in others.",
        before: document(&json!({"v": 1})),
        whole: None,
        sides: [eu(set("/v", object())), us(set("/v", json!(7))), ap(set("/v", json!("text")))],
        two: Ends {
            shows: shows(
                [json!(7), object(), json!(7), object(), json!(7), json!(7), object()],
                frame,
            ),
            rows: vec![row(
                "/v",
                "type",
                base(),
                vec![wrote("eu", object()), wrote("us", 7)],
                ["us", "eu", "us", "eu", "us", "us", "eu"],
                "open",
            )],
        },
        three: Ends {
            shows: shows(
                [json!(7), object(), json!("text"), object(), json!(7), json!(7), json!("text")],
                frame,
            ),
            rows: vec![row(
                "/v",
                "type",
                base(),
                vec![wrote("eu", object()), wrote("us", 7), wrote("ap", "text")],
                ["us", "eu", "ap", "eu", "us", "us", "ap"],
                "open",
            )],
        },
    }
}

fn increments_against_an_overwrite() -> Kind {
    let frame = |likes: Value| json!({"likes": likes});
    let many = || json!("many");
    let why = "auto: an overwrite wins over concurrent increments";
    Kind {
        name: "increments against an overwrite",
        told: "A counter goes on counting in some regions, and becomes a word in another.",
        before: increment("/likes", 1),
        whole: None,
        sides: [
            eu(increment("/likes", 10)),
            us(set("/likes", many())),
            ap(increment("/likes", 100)),
        ],
        two: Ends {
            shows: shows([many(), json!(11), many(), many(), json!(11), many(), json!(11)], frame),
            rows: vec![row(
                "/likes",
                "counter",
                Some(json!(1)),
                vec![wrote("eu", 11), wrote("us", "many")],
                ["us", "eu", "us", "us", "eu", "us", "eu"],
                why,
            )],
        },
        // A value was overwritten with increments on both sides: the winner's count stands.
        three: Ends {
            shows: shows(
                [many(), json!(11), json!(101), many(), json!(11), many(), json!(101)],
                frame,
            ),
            rows: vec![row(
                "/likes",
                "counter",
                Some(json!(1)),
                vec![wrote("eu", 11), wrote("us", "many"), wrote("ap", 101)],
                ["us", "eu", "ap", "us", "eu", "us", "ap"],
                why,
            )],
        },
    }
}

fn counters_created_twice() -> Kind {
    let frame = |likes: i64| json!({"likes": likes, "x": 0});
    Kind {
        name: "a counter created twice",
        told: "Nobody has liked the article yet; its first likes come in several regions at once.",
        before: document(&json!({"x": 0})),
        whole: None,
        sides: [
            eu(increment("/likes", 10)),
            us(increment("/likes", 1)),
            ap(increment("/likes", 100)),
        ],
        two: Ends {
            shows: shows([11, 10, 1, 10, 1, 11, 10], frame),
            rows: vec![row(
                "/likes",
                "counter",
                None,
                vec![wrote("eu", 10), wrote("us", 1)],
                ["-", "eu", "us", "eu", "us", "-", "eu"],
                "auto: all sides show, merged",
            )],
        },
        three: Ends {
            shows: shows([111, 10, 100, 100, 1, 111, 100], frame),
            rows: vec![row(
                "/likes",
                "counter",
                None,
                vec![wrote("eu", 10), wrote("us", 1), wrote("ap", 100)],
                ["-", "eu", "ap", "ap", "us", "-", "ap"],
                "auto: all sides show, merged",
            )],
        },
    }
}

fn list_elements() -> Kind {
    let frame = |second| json!({"list": ["a", second, "c"]});
    let base = || Some(json!("b"));
    Kind {
        name: "one list element set twice",
        told: "The second line of a list is corrected in several regions at once.",
        before: document(&json!({"list": ["a", "b", "c"]})),
        whole: None,
        sides: [
            eu(set("/list/1", json!("a"))),
            us(set("/list/1", json!("m"))),
            ap(set("/list/1", json!("z"))),
        ],
        two: Ends {
            shows: shows(["m", "a", "m", "m", "a", "m", "a"], frame),
            rows: vec![row(
                "/list/1",
                "value",
                base(),
                vec![wrote("eu", "a"), wrote("us", "m")],
                ["us", "eu", "us", "us", "eu", "us", "eu"],
                "open",
            )],
        },
        three: Ends {
            shows: shows(["m", "a", "z", "z", "a", "m", "z"], frame),
            rows: vec![row(
                "/list/1",
                "value",
                base(),
                vec![wrote("eu", "a"), wrote("us", "m"), wrote("ap", "z")],
                ["us", "eu", "ap", "ap", "eu", "us", "ap"],
                "open",
            )],
        },
    }
}

fn equal_values() -> Kind {
    let same = || set("/title", json!("same"));
    let ends = || Ends { shows: always(json!({"title": "same", "x": 0})), rows: Vec::new() };
    Kind {
        name: "equal values",
        told: "The same correction is made in every region: there is nothing to decide.",
        before: document(&json!({"title": "one", "x": 0})),
        whole: None,
        sides: [eu(same()), us(same()), ap(same())],
        two: ends(),
        three: ends(),
    }
}
