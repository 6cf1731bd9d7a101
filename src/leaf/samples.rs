//! Arbitrary messages for property tests.

use std::time::Duration;

use anabranch_crdt::entry::Dot;
use anabranch_crdt::ids::{ChangeHash, DocumentId, DocumentName, Origin, Sequence};
use anabranch_crdt::version::VersionVector;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{MAX_LISTED, Outlook, Refusal, Reply, Request, Since};
use crate::consistency::WriteConcern;
use crate::document::Digest;

fn name() -> impl Strategy<Value = DocumentName> {
    "[a-z][a-z0-9._-]{0,8}/[a-zé/ ]{1,12}".prop_map(|name| name.parse().unwrap())
}

fn vector() -> impl Strategy<Value = VersionVector> {
    let dot = (any::<[u8; 16]>(), 1_u64..).prop_map(|(origin, sequence)| Dot {
        origin: Origin::from_bytes(origin),
        sequence: Sequence(sequence),
    });
    vec(dot, 0..4).prop_map(|dots| dots.into_iter().collect())
}

fn changes() -> impl Strategy<Value = Vec<Bytes>> {
    vec(vec(any::<u8>(), 0..40).prop_map(Bytes::from), 0..5)
}

fn concern() -> impl Strategy<Value = WriteConcern> {
    let texts = vec!["local", "majority", "all", "regions=2", "regions=eu-west,us-east"];
    proptest::sample::select(texts).prop_map(|text| text.parse().unwrap())
}

pub(super) fn request() -> impl Strategy<Value = Request> {
    let heads = vec(any::<[u8; 32]>().prop_map(ChangeHash), 0..4);
    let since = option::of(vector()).prop_map(|vector| vector.map_or(Since::Now, Since::Vector));
    prop_oneof![
        any::<u32>().prop_map(|protocol| Request::Hello { protocol }),
        (name(), changes()).prop_map(|(name, changes)| Request::Push { name, changes }),
        (name(), heads).prop_map(|(name, heads)| Request::Pull { name, heads }),
        (name(), "\\PC{0,8}", any::<bool>(), 0..=MAX_LISTED).prop_map(
            |(name, prefix, resumed, limit)| Request::List {
                collection: name.collection,
                prefix,
                after: resumed.then_some(name.key),
                limit,
            }
        ),
        (vec(name(), 0..3), vec(name(), 0..3), since).prop_map(|(collections, names, since)| {
            let collections = collections.into_iter().map(|name| name.collection).collect();
            Request::Watch { collections, names, since }
        }),
        (vector(), concern(), 0..=30_000_u64).prop_map(|(vector, concern, wait)| {
            Request::Confirm { vector, concern, wait: Duration::from_millis(wait) }
        }),
    ]
}

pub(super) fn reply() -> impl Strategy<Value = Reply> {
    let region = "[a-z][a-z-]{0,8}";
    let documents = vec((name(), any::<[u8; 16]>()), 0..4);
    prop_oneof![
        (region, vector()).prop_map(|(region, vector)| Reply::Welcome {
            region: region.parse().unwrap(),
            vector
        }),
        vector().prop_map(|vector| Reply::Accepted { vector }),
        ("[a-z_]{1,12}", "\\PC{0,30}", any::<bool>()).prop_map(|(code, message, later)| {
            let outlook = if later { Outlook::Later } else { Outlook::Never };
            Reply::Refused(Refusal { code, message, outlook })
        }),
        (any::<[u8; 16]>(), changes(), any::<bool>(), any::<bool>(), vector()).prop_map(
            |(document, changes, exists, more, vector)| {
                let document = DocumentId::from_bytes(document);
                Reply::Changes { document, changes, exists, more, vector }
            }
        ),
        (documents, any::<bool>()).prop_map(|(documents, more)| {
            let listed = documents.into_iter().map(|(name, digest)| (name.key, Digest(digest)));
            Reply::Listed { documents: listed.collect(), more }
        }),
        (name(), vector()).prop_map(|(name, vector)| Reply::Changed { name, vector }),
        vector().prop_map(|vector| Reply::Heartbeat { vector }),
        (vec("[a-z][a-z-]{0,8}", 0..4), any::<bool>()).prop_map(|(regions, met)| {
            let regions = regions.iter().map(|region| region.parse().unwrap()).collect();
            Reply::Confirmed { regions, met }
        }),
    ]
}
