//! Collisions of a part with what is around it: objects, list elements, and whole documents.

use serde_json::{Value, json};

use super::super::story::{Ends, Kind, Row};
use super::{always, ap, deletes, document, eu, remove, removed, row, set, us, wrote};

pub(super) fn kinds() -> Vec<Kind> {
    vec![
        edit_inside_a_deleted_object(),
        edit_inside_a_deleted_element(),
        document_deleted_before_an_edit(),
        document_deleted_after_an_edit(),
    ]
}

/// Nothing brings back a field whose object is gone.
fn edit_inside_a_deleted_object() -> Kind {
    let gone = |candidates| Row {
        chosen: Some("the object around is gone"),
        ..row("/by/name", "delete", Some(json!("Ada")), candidates, ["us"; 7], GONE)
    };
    Kind {
        name: "an edit inside a deleted object",
        told: "One region removes the author; others, which do not know, change the author's name.",
        before: document(&json!({"by": {"name": "Ada"}, "x": 0})),
        whole: None,
        sides: [
            eu(set("/by/name", json!("Grace"))),
            us(remove("/by")),
            ap(set("/by/name", json!("Edith"))),
        ],
        two: Ends {
            shows: always(json!({"x": 0})),
            rows: vec![gone(vec![wrote("eu", "Grace"), removed("us")])],
        },
        three: Ends {
            shows: always(json!({"x": 0})),
            rows: vec![gone(vec![wrote("eu", "Grace"), removed("us"), wrote("ap", "Edith")])],
        },
    }
}

fn edit_inside_a_deleted_element() -> Kind {
    let gone = |candidates| Row {
        chosen: Some("the object around is gone"),
        ..row("/items/0/n", "delete", Some(json!(1)), candidates, ["us"; 7], GONE)
    };
    Kind {
        name: "an edit inside a deleted list element",
        told: "One region takes an item off the list; others change how many of it there are.",
        before: document(&json!({"items": [{"n": 1}, {"n": 2}]})),
        whole: None,
        sides: [
            eu(set("/items/0/n", json!(10))),
            us(remove("/items/0")),
            ap(set("/items/0/n", json!(20))),
        ],
        two: Ends {
            shows: always(json!({"items": [{"n": 2}]})),
            rows: vec![gone(vec![wrote("eu", 10), removed("us")])],
        },
        three: Ends {
            shows: always(json!({"items": [{"n": 2}]})),
            rows: vec![gone(vec![wrote("eu", 10), removed("us"), wrote("ap", 20)])],
        },
    }
}

fn document_deleted_before_an_edit() -> Kind {
    let doc = |title: &str, x: u64| json!({"title": title, "x": x});
    let base = || Some(doc("one", 0));
    let (a, nine, both) = (doc("a", 0), doc("one", 9), doc("a", 9));
    Kind {
        name: "a document deleted before it was edited elsewhere",
        told: "One region deletes the article; others, which do not know, change parts of it.",
        before: document(&doc("one", 0)),
        whole: None,
        sides: [eu(set("/title", json!("a"))), deletes(us(Vec::new())), ap(set("/x", json!(9)))],
        two: Ends {
            shows: [a.clone(), a.clone(), Value::Null, a.clone(), a.clone(), a.clone(), a.clone()],
            rows: vec![row(
                "",
                "document",
                base(),
                vec![wrote("eu", a.clone()), removed("us")],
                ["eu", "eu", "us", "eu", "eu", "eu", "eu"],
                "auto: an edit wins over a concurrent delete",
            )],
        },
        three: Ends {
            shows: always(both),
            rows: vec![row(
                "",
                "document",
                base(),
                vec![wrote("eu", a), removed("us"), wrote("ap", nine)],
                ["-"; 7],
                "auto: an edit wins over a concurrent delete",
            )],
        },
    }
}

fn document_deleted_after_an_edit() -> Kind {
    let doc = |title: &str, x: u64| json!({"title": title, "x": x});
    let base = || Some(doc("one", 0));
    let (m, nine, both) = (doc("m", 0), doc("one", 9), doc("m", 9));
    Kind {
        name: "a document deleted after it was edited elsewhere",
        told: "One region deletes the article, later than others have changed parts of it.",
        before: document(&doc("one", 0)),
        whole: None,
        sides: [deletes(eu(Vec::new())), us(set("/title", json!("m"))), ap(set("/x", json!(9)))],
        two: Ends {
            shows: [
                m.clone(),
                Value::Null,
                m.clone(),
                m.clone(),
                m.clone(),
                m.clone(),
                Value::Null,
            ],
            rows: vec![row(
                "",
                "document",
                base(),
                vec![removed("eu"), wrote("us", m.clone())],
                ["us", "eu", "us", "us", "us", "us", "eu"],
                "auto: an edit wins over a concurrent delete",
            )],
        },
        three: Ends {
            shows: [
                both.clone(),
                Value::Null,
                both.clone(),
                both.clone(),
                both.clone(),
                both.clone(),
                both,
            ],
            rows: vec![row(
                "",
                "document",
                base(),
                vec![removed("eu"), wrote("us", m), wrote("ap", nine)],
                ["-", "eu", "-", "-", "-", "-", "-"],
                "auto: an edit wins over a concurrent delete",
            )],
        },
    }
}

const GONE: &str = "auto: the object around is gone";
