//! What the commands tell of writes that do not get far enough, and of reads that nobody can vouch
//! for: one of two regions is not there.

use super::support::run;
use super::topology::Topology;

#[test]
fn a_write_that_does_not_get_far_enough_is_told_by_the_exit_code() {
    let topology = Topology::certified(&["eu", "us"], "");
    let _eu = topology.serve("eu");
    let url = topology.url("eu");
    let eu = |arguments: &[&str]| run(&[arguments, &["--url", &url]].concat());
    let all = ["--write-concern", "all; timeout=100ms"];
    let with = |arguments: &[&'static str]| eu(&[arguments, &all].concat());

    with(&["doc", "put", "c/k", "{\"n\":1}"]).exits(6).says(&["durable in eu"]);
    eu(&["doc", "get", "c/k"]).exits(0).prints("{\"n\":1}\n");
    with(&["doc", "patch", "c/k", "{\"n\":2}"]).exits(6);
    with(&["collections", "set", "c", "--policy", "lww"]).exits(6);
    let lines = topology.write("lines.jsonl", "{\"id\": \"a\"}\n{\"id\": \"b\"}\n");
    let import = ["import", &lines, "--collection", "c", "--key-field", "id"];
    eu(&[&import[..], &all].concat()).exits(6).says(&["2 documents written, but not in time"]);
    eu(&["doc", "ls", "c", "--values"]).exits(0);
    with(&["doc", "delete", "c/k"]).exits(6);
    eu(&["doc", "get", "c/k"]).exits(3);

    let local = ["doc", "put", "c/k", "{}", "--write-concern", "local", "-o", "json"];
    assert_eq!(eu(&local).exits(0).json()["durable"], "eu");
    for (concern, why) in [("regions=3", "concern_out_of_reach"), ("regions=mars", "mars")] {
        eu(&["doc", "put", "c/k", "{}", "--write-concern", concern]).exits(1).says(&[why]);
    }
    eu(&["doc", "put", "c/k", "{}", "--write-concern", "most"]).exits(2).says(&["majority"]);

    let majority = ["--read-concern", "majority; timeout=100ms"];
    eu(&[&["doc", "get", "c/k"][..], &majority].concat()).exits(5).says(&["no_majority", "us"]);
    eu(&["doc", "ls", "c", "--max-staleness", "60"]).exits(5).says(&["too_stale", "unknown age"]);
    eu(&["collections", "list", "--max-staleness", "soon"]).exits(2).says(&["number of seconds"]);
}
