//! `GET /v1/docs/{collection}`: the live documents of a collection in key order, page by page.

use anabranch_crdt::ids::{CollectionName, DocumentKey};
use axum::extract::Request;
use axum::http::StatusCode;
use bytes::Bytes;

use crate::document::Document;

use super::request::{Query, bad_query, from_cursor, listed_collection, to_cursor};
use super::{Answer, ApiState, Problem, reply, session};

/// Documents of one page at most.
pub(super) const PAGE_DOCUMENTS: u64 = 1_000;

/// Documents of one page when the request does not say.
const PAGE_DEFAULT: u64 = 100;

/// Bytes of values after which a page ends early; one document alone may be larger.
pub(super) const PAGE_BYTES: usize = 4 << 20;

/// Documents that are read at once, at first; then as many as fit into a page by what was seen.
const FIRST_BATCH: usize = 16;

/// Documents that are read at once, at most.
const LARGEST_BATCH: usize = 256;

/// `GET`.
pub(super) async fn list(state: ApiState, request: Request) -> Answer {
    let (parts, _) = request.into_parts();
    let collection = listed_collection(parts.uri.path())?;
    let wanted = Wanted::parse(parts.uri.query())?;
    session::catch_up(&state, &parts.headers).await?;
    let page = read_page(&state, &collection, &wanted).await?;
    let total = match wanted.total {
        true => Some(state.documents().count(&collection, &wanted.prefix).await?),
        false => None,
    };
    let mut response = reply::json_bytes(StatusCode::OK, page.finish(total));
    reply::set_session(response.headers_mut(), &state.documents().position());
    Ok(response)
}

/// What a request wants listed.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    prefix: String,
    limit: usize,
    after: Option<DocumentKey>,
    values: bool,
    total: bool,
}

impl Wanted {
    fn parse(query: Option<&str>) -> Result<Self, Problem> {
        let query = Query::parse(query, &["prefix", "limit", "cursor", "values", "total"])?;
        let limit = query.number("limit", 1..=PAGE_DOCUMENTS, PAGE_DEFAULT)?;
        Ok(Self {
            prefix: query.text("prefix").unwrap_or_default().to_owned(),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            after: query.text("cursor").map(key_after).transpose()?,
            values: query.switch("values")?,
            total: query.switch("total")?,
        })
    }
}

fn key_after(cursor: &str) -> Result<DocumentKey, Problem> {
    from_cursor(cursor)
        .and_then(|key| key.parse().ok())
        .ok_or_else(|| bad_query("the query parameter 'cursor' is what 'next' of a page says"))
}

async fn read_page(
    state: &ApiState,
    collection: &CollectionName,
    wanted: &Wanted,
) -> Result<Page, Problem> {
    let mut page = Page::new(wanted);
    let mut after = wanted.after.clone();
    let mut batch = FIRST_BATCH;
    loop {
        // One more than fits tells whether there is a next page.
        let asked = batch.min(page.room() + 1);
        let found =
            state.documents().list(collection, &wanted.prefix, after.as_ref(), asked).await?;
        let bytes: usize = found.iter().map(|(_, document)| document.json.len()).sum();
        let last = found.len() < asked;
        for (key, document) in found {
            if !page.add(&key, &document) {
                return Ok(page);
            }
            after = Some(key);
        }
        if last {
            return Ok(page.ended());
        }
        batch = next_batch(asked, bytes);
    }
}

/// Returns how many documents fit into a page, if the next ones are like those just read.
fn next_batch(documents: usize, bytes: usize) -> usize {
    let average = (bytes / documents.max(1)).max(1);
    (PAGE_BYTES / average).clamp(1, LARGEST_BATCH)
}

/// A page as it is written.
#[derive(Debug)]
struct Page {
    json: Vec<u8>,
    limit: usize,
    values: bool,
    documents: usize,
    value_bytes: usize,
    last: Option<DocumentKey>,
    more: bool,
}

impl Page {
    fn new(wanted: &Wanted) -> Self {
        Self {
            json: b"{\"documents\":[".to_vec(),
            limit: wanted.limit,
            values: wanted.values,
            documents: 0,
            value_bytes: 0,
            last: None,
            more: true,
        }
    }

    fn room(&self) -> usize {
        self.limit - self.documents
    }

    /// Adds a document; false if the page is full without it.
    fn add(&mut self, key: &DocumentKey, document: &Document) -> bool {
        let value_bytes = if self.values { document.json.len() } else { 0 };
        let too_large = self.documents > 0 && self.value_bytes + value_bytes > PAGE_BYTES;
        if self.room() == 0 || too_large {
            return false;
        }
        if self.documents > 0 {
            self.json.push(b',');
        }
        self.write(key, document);
        self.documents += 1;
        self.value_bytes += value_bytes;
        self.last = Some(key.clone());
        true
    }

    fn write(&mut self, key: &DocumentKey, document: &Document) {
        let out = &mut self.json;
        out.extend_from_slice(b"{\"key\":");
        reply::append_json(out, &key.as_str());
        out.extend_from_slice(b",\"etag\":");
        reply::append_json(out, &reply::etag_text(document.digest));
        out.extend_from_slice(b",\"conflicts\":");
        reply::append_json(out, &document.conflicts);
        if self.values {
            out.extend_from_slice(b",\"value\":");
            out.extend_from_slice(&document.json);
        }
        out.push(b'}');
    }

    /// Notes that nothing comes after the page.
    fn ended(mut self) -> Self {
        self.more = false;
        self
    }

    fn finish(mut self, total: Option<u64>) -> Bytes {
        let next = self.last.filter(|_| self.more).map(|key| to_cursor(key.as_str()));
        self.json.extend_from_slice(b"],\"next\":");
        reply::append_json(&mut self.json, &next);
        if let Some(total) = total {
            self.json.extend_from_slice(b",\"total\":");
            reply::append_json(&mut self.json, &total);
        }
        self.json.push(b'}');
        self.json.into()
    }
}

#[cfg(test)]
mod tests {
    use anabranch_crdt::ids::DocumentId;
    use axum::response::IntoResponse;
    use serde_json::{Value, json};

    use crate::document::Digest;

    use super::*;

    fn wanted(query: &str) -> Wanted {
        Wanted::parse(Some(query)).unwrap()
    }

    fn document(json: &str) -> Document {
        Document {
            id: DocumentId::from_bytes([1; 16]),
            digest: Digest([2; 16]),
            conflicts: 3,
            json: json.to_owned().into(),
        }
    }

    fn key(text: &str) -> DocumentKey {
        text.parse().unwrap()
    }

    fn json_of(page: Page) -> Value {
        serde_json::from_slice(&page.finish(None)).unwrap()
    }

    #[test]
    fn requests_have_defaults() {
        let expected =
            Wanted { prefix: String::new(), limit: 100, after: None, values: false, total: false };
        assert_eq!(Wanted::parse(None).unwrap(), expected);
        let cursor = to_cursor("fr/paris");
        let all = wanted(&format!("prefix=fr/&limit=5&values=true&cursor={cursor}"));
        let after = Some(key("fr/paris"));
        assert_eq!(
            all,
            Wanted { prefix: "fr/".into(), limit: 5, after, values: true, total: false }
        );
    }

    #[test]
    fn bad_requests_are_refused() {
        for query in ["limit=0", "limit=1001", "cursor=x", "cursor=", "values=yes", "order=key"] {
            let problem = Wanted::parse(Some(query)).unwrap_err();
            assert_eq!(problem.into_response().status(), 400, "{query}");
        }
    }

    #[test]
    fn page_lists_documents_and_ends() {
        let mut page = Page::new(&wanted("values=true"));
        assert!(page.add(&key("a\"b"), &document("{\"n\":1}")));
        assert!(page.add(&key("c"), &document("{}")));
        let etag = "\"02020202020202020202020202020202\"";
        let expected = json!({
            "documents": [
                {"key": "a\"b", "etag": etag, "conflicts": 3, "value": {"n": 1}},
                {"key": "c", "etag": etag, "conflicts": 3, "value": {}},
            ],
            "next": null,
        });
        assert_eq!(json_of(page.ended()), expected);
    }

    #[test]
    fn full_page_names_the_next() {
        let mut page = Page::new(&wanted("limit=1"));
        assert!(page.add(&key("a"), &document("{}")));
        assert!(!page.add(&key("b"), &document("{}")));
        let page = json_of(page);
        assert_eq!(page["next"], json!(to_cursor("a")));
        assert_eq!(page["documents"][0].get("value"), None);
    }

    #[test]
    fn values_end_a_page_early_but_never_before_the_first() {
        let large = document(&format!("{{\"s\":\"{}\"}}", "x".repeat(PAGE_BYTES)));
        let mut page = Page::new(&wanted("values=true"));
        assert!(page.add(&key("a"), &large));
        assert!(!page.add(&key("b"), &document("{}")));
        assert_eq!(json_of(page)["next"], json!(to_cursor("a")));
        let mut keys = Page::new(&wanted(""));
        assert!(keys.add(&key("a"), &large) && keys.add(&key("b"), &large));
    }

    #[test]
    fn empty_page_is_a_page() {
        let page = Page::new(&wanted("")).ended();
        assert_eq!(json_of(page), json!({"documents": [], "next": null}));
    }

    #[test]
    fn batches_follow_the_size_of_documents() {
        assert_eq!(next_batch(16, 16 * 100), LARGEST_BATCH);
        assert_eq!(next_batch(16, 16 << 20), 4);
        assert_eq!(next_batch(4, 16 << 20), 1);
        assert_eq!(next_batch(16, 0), LARGEST_BATCH);
    }
}
