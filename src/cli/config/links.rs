//! The links between regions: `peers`, and whether they hold the cluster together.

use std::collections::BTreeSet;

use anabranch_crdt::ids::RegionName;
use toml::Spanned;
use toml::de::{DeArray, DeValue};

use super::reader::{ConfigError, Section, Source};
use super::suggestion::closest;
use crate::settings::{Neighbours, RegionSettings};

/// Reads the `peers` of a region; that they exist is checked when all regions are read.
pub(super) fn read(section: &Section<'_>, own: &RegionName) -> Result<Neighbours, ConfigError> {
    let Some(value) = section.optional("peers") else { return Ok(Neighbours::All) };
    let source = section.source;
    let list = value.get_ref().as_array().ok_or_else(|| {
        source.error(&value.span(), "'peers' must be a list of regions").help(HELP)
    })?;
    let mut peers = BTreeSet::new();
    for entry in list.iter() {
        let text = section.text_of("peers", entry)?;
        let complain = |message: String| source.error(&text.span(), message);
        let peer: RegionName = text
            .get_ref()
            .parse()
            .map_err(|error| complain(format!("bad region: {error}")).help(HELP))?;
        if peer == *own {
            return Err(complain(format!("'{own}' is named as its own peer"))
                .help("name the other regions that it has links with"));
        }
        if peers.contains(&peer) {
            return Err(
                complain(format!("peer '{peer}' is named twice")).help("name every region once")
            );
        }
        peers.insert(peer);
    }
    Ok(Neighbours::Only(peers))
}

/// Checks that peers are regions, and that every change can reach every region.
pub(super) fn check<'a>(
    source: Source<'a>,
    list: &'a DeArray<'a>,
    regions: &[RegionSettings],
) -> Result<(), ConfigError> {
    for value in list.iter() {
        check_names(source, value, regions)?;
    }
    let parts = parts(regions);
    if parts.len() < 2 {
        return Ok(());
    }
    let names = |part: &BTreeSet<&RegionName>| {
        part.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let all: Vec<String> = parts.iter().map(names).collect();
    let message = format!("'peers' split the regions into {} parts", parts.len());
    let help = format!(
        "no change would get from one part to another: {}; let regions of both sides name each \
         other, or leave 'peers' out",
        all.join(" | ")
    );
    let place = list.iter().find_map(|value| value.get_ref().as_table()?.get("peers"));
    let span = place.map_or(0..0, Spanned::span);
    Err(source.error(&span, message).help(help))
}

fn check_names<'a>(
    source: Source<'a>,
    value: &'a Spanned<DeValue<'a>>,
    regions: &[RegionSettings],
) -> Result<(), ConfigError> {
    let section = Section::new(source, "[[region]]", value)?;
    let peers = section.optional("peers").and_then(|peers| peers.get_ref().as_array());
    for entry in peers.into_iter().flat_map(|list| list.iter()) {
        let text = section.text_of("peers", entry)?;
        let names: Vec<&str> = regions.iter().map(|region| region.name.as_str()).collect();
        if names.contains(text.get_ref()) {
            continue;
        }
        let all = format!("this file has {}", names.join(", "));
        let help = match closest(text.get_ref(), &names) {
            Some(name) => format!("did you mean '{name}'? ({all})"),
            None => all,
        };
        let message = format!("there is no region '{}'", text.get_ref());
        return Err(source.error(&text.span(), message).help(help));
    }
    Ok(())
}

/// Returns the sets of regions that are held together by links, in the order of the file.
fn parts(regions: &[RegionSettings]) -> Vec<BTreeSet<&RegionName>> {
    let linked = |a: &RegionSettings, b: &RegionSettings| {
        a.peers.contains(&b.name) && b.peers.contains(&a.name)
    };
    let mut parts: Vec<BTreeSet<&RegionName>> = Vec::new();
    for first in regions {
        if parts.iter().any(|part| part.contains(&first.name)) {
            continue;
        }
        let mut part = BTreeSet::from([&first.name]);
        let mut edge = vec![first];
        while let Some(region) = edge.pop() {
            let next = regions.iter().filter(|other| linked(region, other));
            edge.extend(next.filter(|other| part.insert(&other.name)));
        }
        parts.push(part);
    }
    parts
}

const HELP: &str = "write the regions that it has links with:  peers = [\"eu-west\", \"us-east\"]";
