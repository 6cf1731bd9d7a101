//! The documents that clients use, and the policies of their collections.

use anabranch_crdt::ids::{CollectionName, DocumentId, DocumentName};
use anabranch_crdt::policy::{Policies, Policy};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::sim::history::{DocumentNumber, History, Kind, Subject};
use crate::sim::node::Node;
use crate::sim::plan::Plan;

/// One document.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) name: DocumentName,
    pub(super) number: DocumentNumber,
    pub(super) kind: Kind,
}

/// Every document of a run.
#[derive(Debug)]
pub(super) struct Subjects(pub(super) Vec<Target>);

impl Subjects {
    pub(super) fn draw(plan: &Plan, rng: &mut ChaCha8Rng) -> Self {
        let mut collections = vec![
            ("sets".to_owned(), Kind::Set),
            ("nested".to_owned(), Kind::NestedSet),
            ("counters".to_owned(), Kind::Counter),
            ("wild".to_owned(), Kind::Wild),
            ("wild-lww".to_owned(), Kind::Wild),
        ];
        for policy in Policy::ALL.iter().filter(|_| rng.random_bool(0.5)) {
            collections.push((registers(*policy), Kind::Register));
        }
        let mut targets = Vec::new();
        for (collection, kind) in collections {
            for number in 0..plan.documents {
                let name: DocumentName = format!("{collection}/{number}")
                    .parse()
                    .expect("the names of simulated documents are sound");
                let number = DocumentId::from(&name).0.as_u128();
                targets.push(Target { name, number, kind });
            }
        }
        Self(targets)
    }

    pub(super) fn history(&self) -> History {
        let subject = |target: &Target| {
            (target.number, Subject { name: target.name.to_string(), kind: target.kind })
        };
        let documents = self.0.iter().map(subject).collect();
        History { documents, ..History::default() }
    }
}

/// The policies of every collection, the same in all regions.
pub(super) fn policies(nodes: &[Node]) -> Vec<(CollectionName, Policies)> {
    let regions: Vec<&str> = nodes.iter().rev().map(|node| node.region.as_str()).collect();
    let mut all: Vec<(String, Policy)> =
        Policy::ALL.iter().map(|policy| (registers(*policy), *policy)).collect();
    all.push(("wild-lww".to_owned(), Policy::Lww));
    let read = |(collection, policy): (String, Policy)| {
        let settings = json!({ "policy": policy.to_string(), "regions": regions });
        let policies = Policies::read(&settings).expect("the settings of the simulator are sound");
        (collection.parse().expect("the names of simulated collections are sound"), policies)
    };
    all.into_iter().map(read).collect()
}

fn registers(policy: Policy) -> String {
    format!("registers-{policy}")
}
