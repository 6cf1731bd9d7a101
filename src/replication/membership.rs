//! Gossip of the member table: who tells whom, and what follows from a change.
//!
//! A change is told at once over every link, and passed on by whoever learns something from it.
//! Hellos and digests carry a digest of the table; where two differ, both sides tell everything.
//! While nothing changes, that digest is all that it costs.

use std::sync::Arc;

use anabranch_crdt::ids::RegionName;

use super::frame::Frame;
use super::members::{Member, MemberAct, Members, NoLink};
use super::peer::Peer;
use super::{Effect, LinkId, MemberState, Replication, Turn};

impl Replication {
    /// Returns the member table.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// Returns the regions that majorities count, the own one included.
    pub fn voters(&self) -> impl Iterator<Item = &RegionName> {
        self.members.voters().map(|member| &member.region)
    }

    /// Takes in what a peer says of members.
    pub(super) fn handle_members(
        &mut self,
        region: &RegionName,
        told: Vec<Member>,
        turn: &mut Turn<'_>,
    ) {
        let changed = self.members.merge(told, region);
        self.spread_members(changed, turn);
    }

    pub(super) fn handle_joining(&mut self, member: Member, turn: &mut Turn<'_>) {
        if self.members.has_room_for(&member.region) {
            let changed = self.members.admit(member);
            self.spread_members(changed, turn);
        }
    }

    pub(super) fn handle_steer(
        &mut self,
        region: &RegionName,
        act: MemberAct,
        turn: &mut Turn<'_>,
    ) {
        // Whoever asks has judged it before; what has become wrong since is not done.
        if let Ok(changed) = self.members.steer(region, act) {
            self.spread_members(changed, turn);
        }
    }

    /// Compares a peer's table with the own one by its digest, and tells everything if they differ.
    pub(super) fn compare_members(
        &mut self,
        region: &RegionName,
        theirs: u64,
        turn: &mut Turn<'_>,
    ) {
        let ours = self.members.digest();
        if theirs == ours || theirs == 0 {
            return;
        }
        let now = turn.monotonic();
        let interval = self.settings.digest_interval;
        let all: Vec<Member> = self.members.iter().cloned().collect();
        let Some(link) = self.link_mut(region) else { return };
        // Their answer to what they were told may be on its way.
        let told = link.members_told.is_some_and(|(told, at)| told == ours && now < at + interval);
        if !told {
            link.members_told = Some((ours, now));
            turn.send(link.id, Frame::Members(all).encode());
        }
    }

    /// Tells every link what has changed, the one it came from too: it may have changed on the
    /// way, and a table is small.
    fn spread_members(&mut self, changed: Vec<Member>, turn: &mut Turn<'_>) {
        if changed.is_empty() {
            return;
        }
        self.knowledge += 1;
        let links: Vec<LinkId> = self.greeted().map(|(_, _, link, _)| link.id).collect();
        let bytes = Frame::Members(changed).encode();
        links.into_iter().for_each(|link| turn.send(link, bytes.clone()));
        turn.effects.push(Effect::Members { members: Arc::new(self.members.clone()) });
        self.follow_members(turn);
    }

    /// Brings peers and links in line with the table.
    fn follow_members(&mut self, turn: &mut Turn<'_>) {
        self.meet_members();
        let links: Vec<(LinkId, RegionName)> =
            self.links.iter().map(|(&link, region)| (link, region.clone())).collect();
        for (link, region) in links {
            if self.members.own_standing().state == MemberState::Left {
                // The others close the links when they have heard of it; if this node did, they
                // might not hear of it.
                return;
            }
            match self.members.link_with(&region) {
                Ok(()) => {}
                // It is told first, and closes the link when it has heard of it.
                Err(NoLink::Gone(_)) => self.close_later(&region, turn),
                Err(why @ (NoLink::OwnGone(_) | NoLink::Unknown | NoLink::Topology)) => {
                    self.close(link, why.explain(self.members.own(), &region), turn);
                }
            }
        }
        self.forget_samples();
        self.keep_if_confirmed(turn);
    }

    fn close_later(&mut self, region: &RegionName, turn: &Turn<'_>) {
        let closes_at = turn.monotonic() + self.settings.digest_interval;
        if let Some(link) = self.link_mut(region) {
            link.closes_at = Some(link.closes_at.unwrap_or(closes_at).min(closes_at));
        }
    }

    /// Closes a link whose region is gone and has had time to hear of it.
    pub(super) fn close_if_gone(&mut self, region: &RegionName, turn: &mut Turn<'_>) -> bool {
        let now = turn.monotonic();
        let Some(link) = self.link_mut(region) else { return true };
        if link.closes_at.is_none_or(|at| at > now) {
            return false;
        }
        let id = link.id;
        match self.members.link_with(region) {
            Err(why) => self.close(id, why.explain(self.members.own(), region), turn),
            // It has come back in the meantime.
            Ok(()) => {
                if let Some(link) = self.link_mut(region) {
                    link.closes_at = None;
                }
                return false;
            }
        }
        true
    }

    /// Makes room for what is to be known of each other region.
    pub(super) fn meet_members(&mut self) {
        let own = self.members.own();
        for member in self.members.iter().filter(|member| member.region != *own) {
            if !self.peers.contains_key(&member.region) {
                self.peers.insert(member.region.clone(), Peer::default());
            }
        }
    }

    /// Leaves the cluster if that was asked for, and every region that stays has all that this
    /// one has.
    pub(super) fn leave_when_done(&mut self, turn: &mut Turn<'_>) {
        if !self.members.own_standing().leaving {
            self.leaving_since = None;
            return;
        }
        // A write that was under way when the door closed may still become durable.
        let since = *self.leaving_since.get_or_insert(turn.monotonic());
        let waited = turn.monotonic() >= since + self.settings.digest_interval;
        if !waited || !self.is_held_by_all() {
            return;
        }
        let changed = self.members.leave();
        self.spread_members(changed, turn);
    }

    fn is_held_by_all(&self) -> bool {
        let has_all = |region: &RegionName| {
            self.rows.get(region).is_some_and(|row| row.held.includes(&self.durable))
        };
        let stays = |member: &&Member| !member.standing.leaving;
        let mut others = self.members.others().filter(stays).peekable();
        others.peek().is_some() && others.all(|member| has_all(&member.region))
    }

    /// Tells whether a region is given up, or has gone by itself.
    pub(super) fn is_gone(&self, region: &RegionName) -> bool {
        let standing = self.members.get(region).map(|member| member.standing.state);
        match standing {
            None | Some(MemberState::Active | MemberState::Draining) => false,
            Some(MemberState::Left | MemberState::Forgotten) => true,
        }
    }
}
