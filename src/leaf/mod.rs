//! Leaves: what an offline-first client and a node say to each other.
//!
//! A conversation is one stream of frames. The client speaks first, with [`Request::Hello`], and
//! every request gets its replies in the order of the requests, so a client may send several
//! before it reads. [`Request::Watch`] turns the stream into one of events. A message that breaks
//! the protocol is answered with [`Reply::Refused`], and ends the conversation.
//!
//! What a client pushes is answered only once it is durable: the node admits it into its own log,
//! so version vectors grow with regions, never with clients.

mod message;
#[cfg(test)]
mod samples;
mod service;
mod wire;

pub(crate) use message::pages;
pub use message::{
    CONFIRM_WAIT, DecodeError, MAX_CHANGES, MAX_CONFIRMING, MAX_HEADS, MAX_LISTED,
    MAX_WATCHED_COLLECTIONS, MAX_WATCHED_NAMES, Outlook, PAGE_BYTES, PROTOCOL, Refusal, Reply,
    Request, Since,
};
pub use service::Service;
