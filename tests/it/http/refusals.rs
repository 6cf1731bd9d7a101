//! What is no request for this API is told so, by status, code and header.

use hyper::Method;
use serde_json::json;

use super::one;

#[tokio::test(flavor = "multi_thread")]
async fn wrong_methods_are_told_the_right_ones() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    let id = "0".repeat(32);
    for (method, path, allowed) in [
        (Method::POST, "/v1/docs/notes/a".to_owned(), "DELETE GET HEAD PATCH PUT"),
        (Method::PUT, "/v1/docs/notes".to_owned(), "GET HEAD"),
        (Method::DELETE, "/v1/changes".to_owned(), "GET HEAD"),
        (Method::PUT, "/v1/conflicts".to_owned(), "GET HEAD"),
        (Method::POST, format!("/v1/conflicts/{id}"), "GET HEAD"),
        (Method::GET, format!("/v1/conflicts/{id}:resolve"), "POST"),
        (Method::POST, "/v1/status".to_owned(), "GET HEAD"),
    ] {
        let reply = solo.call(method, path).refused(405, "method_not_allowed").await;
        let mut allow: Vec<_> = reply.header("allow").split(',').map(str::trim).collect();
        allow.sort_unstable();
        assert_eq!(allow.join(" "), allowed);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_paths_and_names_are_refused() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    for path in ["/", "/v1", "/v1/docs", "/v2/docs/notes/a", "/v1/documents/notes/a", "/metric"] {
        solo.get(path).refused(404, "no_such_route").await;
    }
    for path in [
        "/v1/docs/notes/",
        "/v1/docs/notes/a%00",
        "/v1/docs/notes/%ff",
        "/v1/docs/notes/%2",
        "/v1/docs/notes/a%0Ab",
    ] {
        solo.get(path).refused(400, "bad_key").await;
    }
    for path in ["/v1/docs/_notes/a", "/v1/docs/no%20tes/a", "/v1/docs/n%C3%B6tes/a", "/v1/docs//a"]
    {
        solo.get(path).refused(400, "bad_collection").await;
    }
    solo.get("/v1/conflicts/abc").refused(400, "bad_conflict_id").await;
    let unknown = "0".repeat(32);
    solo.get(format!("/v1/conflicts/{unknown}")).refused(404, "conflict_not_found").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_media_types_are_told_the_right_ones() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    solo.put("notes/a", &json!({"n": 1})).ok().await;
    for media_type in
        ["text/plain", "application/json; charset=latin1", "application/merge-patch+json"]
    {
        let put = solo.call(Method::PUT, "/v1/docs/notes/a").body(media_type, "{}");
        let reply = put.refused(415, "unsupported_media_type").await;
        assert_eq!(reply.header("accept"), "application/json");
    }
    for media_type in ["application/json", "text/plain"] {
        let patch = solo.call(Method::PATCH, "/v1/docs/notes/a").body(media_type, "{}");
        let reply = patch.refused(415, "unsupported_media_type").await;
        for format in ["merge-patch+json", "json-patch+json", "vnd.anabranch.edits+json"] {
            assert!(reply.header("accept-patch").contains(format), "{format}");
        }
    }
    let packed = solo.put("notes/a", &json!({})).header("content-encoding", "gzip");
    packed.refused(415, "unsupported_media_type").await;
    let charset = solo.call(Method::PUT, "/v1/docs/notes/a");
    let charset = charset.body("Application/JSON; charset=\"UTF-8\"", "{\"n\":2}");
    assert_eq!(charset.ok().await.value(), json!({"n": 2}));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_describes_itself() {
    let cluster = one().await;
    let solo = cluster.at("solo");
    assert_eq!(solo.get("/livez").ok().await.value(), json!({"live": true}));
    assert_eq!(solo.get("/readyz").ok().await.value(), json!({"ready": true}));
    let status = solo.get("/v1/status").ok().await.value();
    assert_eq!((&status["region"], &status["cluster"]["name"]), (&json!("solo"), &json!("test")));
    let openapi = solo.get("/v1/openapi.json").ok().await.value();
    assert!(openapi["paths"]["/v1/docs/{collection}/{key}"]["patch"].is_object());
    cluster.stop().await;
}
