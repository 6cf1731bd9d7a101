//! Reading and changing the settings of collections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anabranch_crdt::ids::{AuthorName, CollectionName};
use anabranch_crdt::policy::Policies;
use futures::future::try_join_all;
use serde_json::Value;
use tracing::info;

use super::owner::SETTLING;
use super::redecide::Redecided;
use super::request::Request;
use super::{Digest, Document, Documents, Precondition, Write, settings};
use crate::error::{Error, ErrorKind};
use crate::journal::Position;

/// The settings of one collection, and how far they are carried out here.
#[derive(Debug, Clone)]
pub struct CollectionSettings {
    /// The collection.
    pub name: CollectionName,
    /// What holds.
    pub policies: Arc<Policies>,
    /// The digest of the document that holds them; `None` where the default does.
    pub digest: Option<Digest>,
    /// Documents that are left to be decided by them, while this region is at it.
    pub redeciding: Option<u64>,
}

/// What changing the settings of a collection came to.
#[derive(Debug, Clone)]
pub struct SettingsWritten {
    /// The settings that hold now.
    pub settings: CollectionSettings,
    /// What deciding again came to, or how many documents are left when the time was up.
    pub redecided: Result<Redecided, u64>,
    /// What is durable here, the settings included.
    pub position: Arc<Position>,
}

impl Documents {
    /// Reads the settings of a collection; one that nobody gave any has the default.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn settings(&self, name: CollectionName) -> Result<CollectionSettings, Error> {
        let document = match settings::document_of(&name) {
            Ok(document) => self.read(&document).await?,
            // The reserved collection: nobody gives it any.
            Err(_) => None,
        };
        Ok(self.described(name, document.as_ref()))
    }

    /// Lists collections in the order of their names, those after `after`: all that have settings
    /// or documents.
    ///
    /// # Errors
    /// `Corrupt`, `Unavailable`.
    pub async fn collections(
        &self,
        after: Option<&CollectionName>,
        limit: usize,
    ) -> Result<Vec<CollectionSettings>, Error> {
        let later = |name: &CollectionName| after.is_none_or(|after| name > after);
        let mut names: BTreeSet<CollectionName> =
            self.setting.collections.named().into_iter().filter(|name| later(name)).collect();
        // One more, for the reserved one among them.
        let stored = self.setting.journal.collections(after, limit.saturating_add(1))?;
        names.extend(stored.into_iter().filter(|name| !name.is_reserved()));
        let mut listed = Vec::new();
        for name in names.into_iter().take(limit) {
            listed.push(self.settings(name).await?);
        }
        Ok(listed)
    }

    /// Gives a collection settings, durably here, and waits until this region has decided its
    /// documents by them, as long as `wait`. Other regions do when the settings reach them.
    ///
    /// # Errors
    /// `Forbidden` for the reserved collection; `Precondition`, `Overloaded`, `Unavailable`.
    pub async fn set_settings(
        &self,
        name: CollectionName,
        policies: &Policies,
        author: Option<AuthorName>,
        precondition: Precondition,
        wait: Duration,
    ) -> Result<SettingsWritten, Error> {
        let document = settings::document_of(&name)?;
        let (rounds, _) = self.redeciding(&name);
        let write = Write::Put(settings::content(policies));
        let written = self.write_unchecked(document, write, author, precondition).await?;
        let redecided = self.redecided(&name, rounds, wait).await;
        let settings = self.described(name, written.document.as_ref());
        Ok(SettingsWritten { settings, redecided, position: written.position })
    }

    /// Takes the settings of a collection back, so that the default holds; waits as
    /// [`Documents::set_settings`] does.
    ///
    /// # Errors
    /// As [`Documents::set_settings`].
    pub async fn reset_settings(
        &self,
        name: CollectionName,
        author: Option<AuthorName>,
        precondition: Precondition,
        wait: Duration,
    ) -> Result<SettingsWritten, Error> {
        let document = settings::document_of(&name)?;
        let (rounds, _) = self.redeciding(&name);
        let free = precondition == Precondition::None;
        let deleted = self.write_unchecked(document, Write::Delete, author, precondition).await;
        let position = match deleted {
            Ok(written) => written.position,
            // Without settings the default holds, which is what is wanted.
            Err(error) if free && error.kind() == ErrorKind::NotFound => self.position(),
            Err(error) => return Err(error),
        };
        let redecided = self.redecided(&name, rounds, wait).await;
        Ok(SettingsWritten { settings: self.described(name, None), redecided, position })
    }

    /// Gives collections the settings that a configuration file has for them, unless they were
    /// given any before: what is replicated holds. Never waits until this leader admits changes:
    /// where that is in the way, it answers so, and is to be called again then.
    ///
    /// # Errors
    /// `Forbidden` for the reserved collection; `Overloaded`, `Unavailable`.
    pub async fn seed(&self, file: &BTreeMap<CollectionName, Policies>) -> Result<Seeded, Error> {
        let all: Vec<_> = file.iter().collect();
        let mut seeded = Seeded::All;
        for some in all.chunks(SEEDS) {
            let some = some.iter().map(|(name, policies)| self.seed_one(name, policies));
            match try_join_all(some).await {
                Ok(_) => {}
                Err(error) if error.code() == SETTLING => seeded = Seeded::WhenSettled,
                Err(error) => return Err(error),
            }
        }
        Ok(seeded)
    }

    async fn seed_one(&self, collection: &CollectionName, file: &Policies) -> Result<(), Error> {
        let name = settings::document_of(collection)?;
        let change = settings::seed(file)?;
        let id = self.newest(&name);
        let (seeded, _) = self.ask(id, |reply| Request::Seed { name, change, reply }).await?;
        let version = self.setting.collections.of(Some(collection)).version();
        if !seeded && version != file.version() {
            info!(
                %collection,
                %version,
                "its settings are replicated and differ from the configuration file: they hold, \
                 and `anabranch collections set {collection}` changes them"
            );
        }
        Ok(())
    }

    fn described(&self, name: CollectionName, document: Option<&Document>) -> CollectionSettings {
        let (_, redeciding) = self.redeciding(&name);
        let content = document.map(|document| serde_json::from_slice::<Value>(&document.json));
        let content = content.and_then(Result::ok);
        let policies = match content {
            Some(content) => Arc::new(settings::read(&content).0),
            None if name.is_reserved() => self.setting.collections.of(Some(&name)),
            None => Arc::default(),
        };
        let digest = document.map(|document| document.digest);
        CollectionSettings { name, policies, digest, redeciding }
    }
}

/// What [`Documents::seed`] has achieved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seeded {
    /// Every collection has settings.
    All,
    /// Some wait until this leader admits changes.
    WhenSettled,
}

/// Settings that are seeded at once, in one commit.
const SEEDS: usize = 32;
