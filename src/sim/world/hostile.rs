//! Hostile clients: changes that are damaged, forged or incomplete, and tokens that are none.

use anabranch_crdt::document::{Author, Document};
use anabranch_crdt::edit::{Edit, Path};
use anabranch_crdt::ids::{CollectionName, DocumentName, Origin, Timestamp};
use anabranch_crdt::message::{Act, Message};
use anabranch_crdt::policy::Policies;
use anabranch_crdt::token;
use bytes::Bytes;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::offline::NOBODY;
use super::{EPOCH, Event, World};
use crate::sim::history::Intent;
use crate::sim::node::Reply;

impl World {
    pub(super) fn attack(&mut self) {
        self.schedule_after(self.plan.hostile, Event::Attack);
        if self.healed {
            return;
        }
        let node = self.any_node();
        let target = self.rng.random_range(0..self.subjects.0.len().max(1));
        let Some(target) = self.subjects.0.get(target).cloned() else { return };
        let Some(process) = self.nodes[node].process.as_ref() else { return };
        let leader = process.journal.origin();
        let documents = process.documents.clone();
        let (what, name, changes) = forge(&mut self.rng, leader, &target.name);
        self.forge_token();
        self.tally.attacks += 1;
        let asking = Box::pin(async move {
            let outcome = documents.admit(name, changes).await.map(|_| None);
            Reply { outcome, position: documents.position() }
        });
        self.begin(NOBODY, node, target.number, (Intent::Attack(what), asking));
    }

    /// Tries a token that no node gave.
    fn forge_token(&mut self) {
        let noise: String = (0..self.rng.random_range(1..40))
            .map(|_| char::from(self.rng.random_range(b'!'..=b'~')))
            .collect();
        // Whatever it says, a node that reads it has to be able to say it again.
        if let Ok(vector) = token::decode(&noise)
            && token::decode(&token::encode(&vector)).as_ref() != Ok(&vector)
        {
            self.violated("sessions", format!("the token '{noise}' is not what it says"));
        }
    }
}

/// Makes changes that no leader may admit.
fn forge(
    rng: &mut ChaCha8Rng,
    leader: Origin,
    target: &DocumentName,
) -> (&'static str, DocumentName, Vec<Bytes>) {
    let stranger = Origin::from_bytes(rng.random());
    let name = target.clone();
    match rng.random_range(0..6) {
        0 => ("under the name of the leader", name, vec![change(leader, Act::Write)]),
        1 => ("as a policy's", name, vec![change(stranger, Act::Policy)]),
        2 => {
            let reserved = CollectionName::settings();
            let name = DocumentName { collection: reserved, key: name.key };
            ("into the settings", name, vec![change(stranger, Act::Write)])
        }
        3 => ("without what it follows", name, vec![second_change(stranger)]),
        4 => {
            let mut bytes = change(stranger, Act::Write).to_vec();
            let at = rng.random_range(0..bytes.len());
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.random_range(0..8);
            }
            ("damaged", name, vec![bytes.into()])
        }
        _ => {
            let noise: Vec<u8> = (0..rng.random_range(0..200)).map(|_| rng.random()).collect();
            ("noise", name, vec![noise.into()])
        }
    }
}

fn change(writer: Origin, act: Act) -> Bytes {
    changes(writer, act).into_iter().next().unwrap_or_default()
}

fn second_change(writer: Origin) -> Bytes {
    changes(writer, Act::Write).into_iter().nth(1).unwrap_or_default()
}

/// Two changes of one writer to a document of its own.
fn changes(writer: Origin, act: Act) -> Vec<Bytes> {
    let mut document = Document::new();
    let mut made = Vec::new();
    for number in 0..2 {
        let message = Message::of(act);
        let at = Timestamp(u64::try_from(EPOCH).unwrap_or_default());
        let author = Author { origin: writer, at, message };
        let path = Path::default().child("hostile");
        let edit = Edit::Set { path, value: json!(number) };
        if let Ok(Some(change)) = document.edit(&[edit], &author, &Policies::default()) {
            made.push(change.bytes);
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_damage_of_one_bit_passes_for_another_change() {
        let bytes = change(Origin::from_bytes([7; 16]), Act::Write);
        for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1 << bit;
            assert!(anabranch_crdt::document::inspect(&damaged.into()).is_err(), "{at}, {bit}");
        }
    }
}
