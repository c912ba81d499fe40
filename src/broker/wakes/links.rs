//! The streams that a subscription is linked with: what of each is done with, and whether something is not.

use std::collections::HashMap;
use std::sync::Arc;

use plinth_storage::Log;
use plinth_storage::ids::{Offset, TenantId};
use plinth_storage::log::{Change, DocOp};

use super::view::LinkView;
use crate::broker::catalog::Catalog;
use crate::broker::documents::{self, WakeLinkDoc};
use crate::broker::error::Error;
use crate::broker::streams::{GivenToken, Token};

/// What stands for an offset where nothing is done with.
pub(super) const BEFORE_ALL: &str = "-1";
/// Links that are read in one step.
const STEP: usize = 1_000;

/// The end of a stream that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Tail {
    /// It, for clients.
    pub(in crate::broker) token: Token,
    /// The first offset that is kept.
    pub(in crate::broker) start: Offset,
}

/// A link with a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) stream: Arc<str>,
    pub(super) explicit: bool,
    pub(super) glob: bool,
    /// None when nothing is done with.
    pub(super) acked: Option<Token>,
    /// None for a stream that is not there.
    pub(super) tail: Option<Tail>,
}

/// An acknowledgement: what is done with in one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The stream.
    pub stream: String,
    /// The last offset that is done with.
    pub offset: String,
}

/// Why acknowledgements are refused, all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadAck(pub(super) String);

impl Link {
    /// A new one, of which nothing is done with.
    pub(super) fn new(stream: Arc<str>, tail: Option<Tail>) -> Self {
        Self { stream, explicit: false, glob: false, acked: None, tail }
    }

    /// The link as it is stored.
    ///
    /// # Errors
    /// `Internal` when it does not have its form.
    pub(super) fn read(stream: Arc<str>, doc: &WakeLinkDoc, tail: Option<Tail>) -> Result<Self, Error> {
        let acked = match doc.acked.as_str() {
            BEFORE_ALL => None,
            text => match GivenToken::parse(text) {
                Some(given) => Some(given.token()),
                None => return Err(Error::defect(format!("the link with {stream} has no offset"))),
            },
        };
        Ok(Self { stream, explicit: doc.explicit, glob: doc.glob, acked, tail })
    }

    fn doc(&self) -> WakeLinkDoc {
        WakeLinkDoc { v: documents::VERSION, explicit: self.explicit, glob: self.glob, acked: self.acked_text() }
    }

    /// Whether it is still linked.
    pub(super) fn is_one(&self) -> bool {
        self.explicit || self.glob
    }

    /// What is done with, as clients see it.
    pub(super) fn acked_text(&self) -> String {
        self.acked.map_or_else(|| BEFORE_ALL.to_owned(), |token| token.to_string())
    }

    /// The end of the stream, as clients see it.
    pub(super) fn tail_text(&self) -> String {
        self.tail.map_or(Token::ZERO, |tail| tail.token).to_string()
    }

    /// Whether there is something that is not done with. What is no longer kept is nothing.
    pub(super) fn is_pending(&self) -> bool {
        let Some(Tail { token, start }) = self.tail else { return false };
        let (tag, end) = token.parts();
        match self.acked {
            Some(acked) if acked >= token => false,
            Some(acked) if acked.parts().0 == tag => end > acked.parts().1.max(start),
            // What is done with is of an earlier stream of the name.
            Some(_) | None => end > start,
        }
    }

    /// All that is there is done with. True when that is news.
    pub(super) fn ack_all(&mut self, tail: Option<Token>) -> bool {
        let acked = self.acked.max(tail);
        let is_news = acked != self.acked;
        self.acked = acked;
        is_news
    }
}

/// The places of links, by their streams.
pub(super) fn places(links: &[Link]) -> HashMap<Arc<str>, usize> {
    links.iter().enumerate().map(|(place, link)| (Arc::clone(&link.stream), place)).collect()
}

/// What clients see of the links.
pub(super) fn views(links: &[Link]) -> Vec<LinkView> {
    links.iter().filter(|link| link.is_one()).map(LinkView::from).collect()
}

/// A stream of which there is something that is not done with.
pub(super) fn pending(links: &[Link]) -> Option<&str> {
    links.iter().find(|link| link.is_one() && link.is_pending()).map(|link| &*link.stream)
}

/// Takes acknowledgements over, all or none. Gives the places of links that have changed by it.
///
/// # Errors
/// The first one that is not linked, or is below what is done with, or above the end.
pub(super) fn apply(links: &mut [Link], acks: &[Ack]) -> Result<Vec<usize>, BadAck> {
    let places = places(links);
    let mut wanted: HashMap<usize, Token> = HashMap::new();
    for ack in acks {
        let place =
            *places.get(&*ack.stream).ok_or_else(|| BadAck(format!("stream {:?} is not linked", ack.stream)))?;
        let link = &links[place];
        let given = GivenToken::parse(&ack.offset).map(GivenToken::token);
        let token = given
            .ok_or_else(|| BadAck(format!("the offset for stream {} is not one that a stream gives", link.stream)))?;
        let acked = wanted.get(&place).copied().or(link.acked);
        if Some(token) < acked {
            return Err(BadAck(format!("the offset for stream {} is below what is acknowledged", link.stream)));
        }
        if token > link.tail.map_or(Token::ZERO, |tail| tail.token) && Some(token) != acked {
            return Err(BadAck(format!("the offset for stream {} is above its end", link.stream)));
        }
        wanted.insert(place, token);
    }
    let mut changed = Vec::new();
    for (place, token) in wanted {
        if links[place].acked != Some(token) {
            links[place].acked = Some(token);
            changed.push(place);
        }
    }
    Ok(changed)
}

/// Adds the links to a change as they are now.
pub(super) fn put<'a>(change: &mut Change, tenant: TenantId, id: &str, links: impl IntoIterator<Item = &'a Link>) {
    for link in links {
        let key = documents::wake_link(tenant, id, &link.stream);
        change.docs.push(if link.is_one() {
            DocOp::Put(key, documents::encode(&link.doc()))
        } else {
            DocOp::Delete(key)
        });
    }
}

/// All links of a subscription, by name, with the ends of their streams as they are now.
///
/// # Errors
/// Those of the log.
pub(super) fn load(log: &Log, catalog: &Catalog, tenant: TenantId, id: &str) -> Result<Vec<Link>, Error> {
    let (prefix, mut after, mut links) = (documents::wake_links(tenant, id), None, Vec::new());
    loop {
        let rows = log.scan(&prefix, after.as_deref(), STEP)?;
        for (key, stored) in &rows {
            let stream: Arc<str> = String::from_utf8_lossy(&key[prefix.len()..]).into();
            let tail = catalog.tail_of(tenant, &stream)?;
            links.push(Link::read(stream, &documents::decode(key, stored)?, tail)?);
        }
        match rows.last() {
            Some((last, _)) if rows.len() == STEP => after = Some(last.clone()),
            Some(_) | None => return Ok(links),
        }
        catalog.changes().go_on()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(tag: u64, start: u64, end: u64) -> Option<Tail> {
        Some(Tail { token: Token::new(tag, Offset(end)), start: Offset(start) })
    }

    fn link(acked: Option<Token>, tail: Option<Tail>) -> Link {
        Link { acked, explicit: true, ..Link::new("s".into(), tail) }
    }

    #[test]
    fn a_link_is_pending_when_something_that_is_kept_is_not_done_with() {
        let at = |tag, offset| Some(Token::new(tag, Offset(offset)));
        for (acked, tail, expected) in [
            (None, None, false),
            (None, tail(9, 0, 0), false),
            (None, tail(9, 0, 1), true),
            (None, tail(9, 5, 5), false),
            (Some(Token::ZERO), None, false),
            (Some(Token::ZERO), tail(9, 0, 0), false),
            (Some(Token::ZERO), tail(9, 0, 1), true),
            (at(9, 1), tail(9, 0, 1), false),
            (at(9, 1), tail(9, 0, 2), true),
            // All behind what is done with is no longer kept.
            (at(9, 1), tail(9, 4, 4), false),
            (at(9, 1), tail(9, 3, 4), true),
            // The stream was deleted and made again, or is a fork that goes on from its source.
            (at(8, 7), tail(9, 0, 1), true),
            (at(8, 7), tail(9, 0, 0), false),
            // The node forgot what it had acknowledged before it was stored.
            (at(9, 3), tail(9, 0, 2), false),
            (at(9, 3), None, false),
        ] {
            assert_eq!(link(acked, tail).is_pending(), expected, "{acked:?} {tail:?}");
        }
    }

    // Fails when an acknowledgement is taken over before the others are looked at.
    #[test]
    fn acknowledgements_are_taken_over_together_or_not() {
        let of = |name: &str, acked: u64| Link {
            stream: name.into(),
            ..link(Some(Token::new(9, Offset(acked))), tail(9, 0, 5))
        };
        let before = vec![of("a", 1), of("b", 2), Link { tail: None, ..of("c", 3) }];
        let ack = |stream: &str, offset: u64| Ack {
            stream: stream.into(),
            offset: Token::new(9, Offset(offset)).to_string(),
        };
        let mut links = before.clone();
        let changed = apply(&mut links, &[ack("b", 5), ack("a", 1), ack("c", 3)]).expect("taken over");
        assert_eq!((changed, links[1].acked), (vec![1], Some(Token::new(9, Offset(5)))));
        let minus = Ack { stream: "a".into(), offset: BEFORE_ALL.into() };
        for bad in
            [ack("d", 5), ack("b", 1), ack("b", 6), ack("c", 4), minus, Ack { offset: "5".into(), ..ack("a", 1) }]
        {
            let mut links = before.clone();
            let refused = apply(&mut links, &[ack("a", 4), bad.clone()]);
            assert!(refused.is_err(), "{bad:?}");
            assert_eq!(links, before);
        }
        let twice = apply(&mut before.clone(), &[ack("a", 4), ack("a", 3)]);
        assert!(twice.is_err(), "below what the same request acknowledges");
    }
}
