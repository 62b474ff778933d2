//! Which blocks of the region are plugged: the device's whole state, and every rule about it.

use super::request::{Plugged, Request, Response, Span};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The blocks of a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocks {
    /// Guest addresses, multiples of [`BLOCK`].
    region: Range<u64>,
    /// One for each block of as much of the region as the host wants plugged, from its beginning; none for the rest.
    plugged: Vec<bool>,
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For the driver.
    pub response: Response,
    /// Guest addresses that were memory and are not any more.
    pub released: Vec<Range<u64>>,
}

impl Blocks {
    /// Those of `region`, of which the host wants nothing plugged yet. Its bounds are multiples of [`BLOCK`].
    pub fn new(region: Range<u64>) -> Blocks {
        Blocks { region, plugged: Vec::new() }
    }

    /// The region.
    pub fn region(&self) -> &Range<u64> {
        &self.region
    }

    /// The host wants the first `bytes` of the region plugged, whole blocks of them. It never wants less than before.
    pub fn want(&mut self, bytes: u64) {
        let bytes = bytes.min(self.region.end.saturating_sub(self.region.start));
        let blocks = usize::try_from(bytes / BLOCK).unwrap_or(usize::MAX);
        if blocks > self.plugged.len() {
            self.plugged.resize(blocks, false);
        }
    }

    /// How many bytes the host wants plugged.
    pub fn wanted(&self) -> u64 {
        (self.plugged.len() as u64).saturating_mul(BLOCK)
    }

    /// How many bytes are plugged.
    pub fn plugged(&self) -> u64 {
        (self.plugged.iter().filter(|plugged| **plugged).count() as u64).saturating_mul(BLOCK)
    }

    /// Does what the driver asks for, as far as it may.
    pub fn serve(&mut self, request: Option<Request>) -> Outcome {
        let answer = |response| Outcome { response, released: Vec::new() };
        match request {
            None => answer(Response::Wrong),
            Some(Request::Plug(span)) => answer(self.plug(span)),
            Some(Request::State(span)) => answer(match self.find(span) {
                Some(found) => Response::State(self.state(found)),
                None => Response::Wrong,
            }),
            Some(Request::Unplug(span)) => self.unplug(span),
            Some(Request::UnplugAll) => {
                let released = self.stretches();
                self.plugged.fill(false);
                Outcome { response: Response::Done, released }
            }
        }
    }

    fn plug(&mut self, span: Span) -> Response {
        let Some(found) = self.find(span) else { return Response::Wrong };
        if self.state(found.clone()) != Plugged::None {
            return Response::Wrong;
        }
        let size = u64::from(span.blocks).saturating_mul(BLOCK);
        if self.plugged().saturating_add(size) > self.wanted() {
            return Response::Denied;
        }
        match self.plugged.get_mut(found) {
            Some(blocks) => blocks.fill(true),
            // There would be enough, but elsewhere: a driver that begins at the region's beginning has no need of this.
            None => return Response::Busy,
        }
        Response::Done
    }

    fn unplug(&mut self, span: Span) -> Outcome {
        let plugged = self.find(span).filter(|found| self.state(found.clone()) == Plugged::All);
        let Some(blocks) = plugged.and_then(|found| self.plugged.get_mut(found)) else {
            return Outcome { response: Response::Wrong, released: Vec::new() };
        };
        blocks.fill(false);
        let size = u64::from(span.blocks).saturating_mul(BLOCK);
        let released = std::iter::once(span.at..span.at.saturating_add(size)).collect();
        Outcome { response: Response::Done, released }
    }

    /// The numbers of blocks that lie in the region, one at least.
    fn find(&self, Span { at, blocks }: Span) -> Option<Range<usize>> {
        let into = at.checked_sub(self.region.start).filter(|into| into % BLOCK == 0)?;
        let end = at.checked_add(u64::from(blocks).checked_mul(BLOCK)?)?;
        if blocks == 0 || end > self.region.end {
            return None;
        }
        let first = usize::try_from(into / BLOCK).ok()?;
        Some(first..first.checked_add(usize::from(blocks))?)
    }

    fn state(&self, found: Range<usize>) -> Plugged {
        let all = found.len();
        let known = self.plugged.iter().skip(found.start).take(all);
        match known.filter(|plugged| **plugged).count() {
            0 => Plugged::None,
            count if count == all => Plugged::All,
            _ => Plugged::Some,
        }
    }

    /// What is plugged, as guest addresses.
    fn stretches(&self) -> Vec<Range<u64>> {
        let mut stretches: Vec<Range<u64>> = Vec::new();
        let starts = (0_u64..).map(|number| self.region.start.saturating_add(number.saturating_mul(BLOCK)));
        for (start, _) in starts.zip(&self.plugged).filter(|(_, plugged)| **plugged) {
            let end = start.saturating_add(BLOCK);
            match stretches.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => stretches.push(start..end),
            }
        }
        stretches
    }
}

/// The size of a block: what Linux can hand to its allocator piece by piece, and a large page.
pub const BLOCK: u64 = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REGION: Range<u64> = 4 << 30..(4 << 30) + 64 * BLOCK;

    fn span(first: u64, blocks: u16) -> Span {
        Span { at: REGION.start + first * BLOCK, blocks }
    }

    fn wanting(blocks: u64) -> Blocks {
        let mut all = Blocks::new(REGION);
        all.want(blocks * BLOCK);
        all
    }

    fn ask(blocks: &mut Blocks, request: Request) -> Response {
        blocks.serve(Some(request)).response
    }

    #[test]
    fn a_driver_plugs_what_is_wanted_and_no_more() {
        let mut blocks = wanting(10);
        assert_eq!(ask(&mut blocks, Request::State(span(0, 10))), Response::State(Plugged::None));
        assert_eq!(ask(&mut blocks, Request::Plug(span(0, 4))), Response::Done);
        assert_eq!(ask(&mut blocks, Request::State(span(0, 10))), Response::State(Plugged::Some));
        assert_eq!(ask(&mut blocks, Request::Plug(span(4, 7))), Response::Denied);
        assert_eq!(ask(&mut blocks, Request::Plug(span(4, 6))), Response::Done);
        assert_eq!(ask(&mut blocks, Request::State(span(0, 10))), Response::State(Plugged::All));
        assert_eq!((blocks.plugged(), blocks.wanted()), (10 * BLOCK, 10 * BLOCK));
        assert_eq!(ask(&mut blocks, Request::Plug(span(10, 1))), Response::Denied);
        // More is wanted, and less never.
        blocks.want(12 * BLOCK + 1);
        blocks.want(3 * BLOCK);
        assert_eq!(blocks.wanted(), 12 * BLOCK);
        assert_eq!(ask(&mut blocks, Request::Plug(span(10, 2))), Response::Done);
        blocks.want(u64::MAX);
        assert_eq!(blocks.wanted(), 64 * BLOCK, "no more than there is");
    }

    #[test]
    fn blocks_lie_within_what_is_wanted_and_not_merely_in_the_region() {
        let mut blocks = wanting(10);
        for beyond in [span(10, 1), span(9, 2), span(63, 1)] {
            assert_eq!(ask(&mut blocks, Request::Plug(beyond)), Response::Busy, "{beyond:?}");
        }
        assert_eq!(blocks.plugged(), 0);
        assert_eq!(ask(&mut blocks, Request::State(span(63, 1))), Response::State(Plugged::None));
    }

    #[test]
    fn what_makes_no_sense_is_an_error_and_changes_nothing() {
        let mut blocks = wanting(10);
        assert_eq!(ask(&mut blocks, Request::Plug(span(2, 2))), Response::Done);
        let before = blocks.clone();
        let bad = [
            Span { at: REGION.start + 1, blocks: 1 },
            Span { at: REGION.start - BLOCK, blocks: 1 },
            Span { at: 0, blocks: u16::MAX },
            Span { at: !(BLOCK - 1), blocks: u16::MAX },
            span(0, 0),
            span(64, 1),
            span(63, 2),
            span(0, 65),
        ];
        for span in bad {
            for request in [Request::Plug(span), Request::Unplug(span), Request::State(span)] {
                assert_eq!(ask(&mut blocks, request), Response::Wrong, "{request:?}");
            }
        }
        // Plugged twice, unplugged where some or all of it is not plugged.
        for request in [Request::Plug(span(1, 2)), Request::Unplug(span(1, 2)), Request::Unplug(span(5, 1))] {
            assert_eq!(ask(&mut blocks, request), Response::Wrong, "{request:?}");
        }
        assert_eq!(blocks.serve(None).response, Response::Wrong);
        assert_eq!(blocks, before);
    }

    #[test]
    fn what_is_unplugged_is_named_for_its_release() {
        let mut blocks = wanting(10);
        ask(&mut blocks, Request::Plug(span(0, 10)));
        let Outcome { response, released } = blocks.serve(Some(Request::Unplug(span(3, 2))));
        assert_eq!(response, Response::Done);
        assert_eq!(released.first(), Some(&(span(3, 0).at..span(5, 0).at)));
        assert_eq!(released.len(), 1);
        let Outcome { response, released } = blocks.serve(Some(Request::UnplugAll));
        assert_eq!(response, Response::Done);
        assert_eq!(released, [span(0, 0).at..span(3, 0).at, span(5, 0).at..span(10, 0).at]);
        assert_eq!(blocks.plugged(), 0);
        // It can come back.
        assert_eq!(ask(&mut blocks, Request::Plug(span(0, 10))), Response::Done);
    }

    proptest! {
        /// Against a set of addresses, whatever is asked.
        #[test]
        fn whatever_is_asked_what_is_plugged_was_wanted(
            asked in prop::collection::vec((0..4_u8, 0..80_u64, 0..20_u16, 0..2 * BLOCK, 0..70_u64), 0..60)
        ) {
            let mut blocks = Blocks::new(REGION);
            let mut model = std::collections::BTreeSet::new();
            let mut wanted = 0;
            for (kind, first, count, off, want) in asked {
                if off > 3 * BLOCK / 2 {
                    wanted = want.clamp(wanted, 64.max(wanted));
                    blocks.want(want * BLOCK);
                    continue;
                }
                let off = if off > BLOCK { off } else { 0 };
                let span = Span { at: REGION.start + first * BLOCK + off, blocks: count };
                let named: Vec<u64> = (first..first + u64::from(count)).collect();
                let sane = off % BLOCK == 0 && count > 0 && first + u64::from(count) <= 64;
                let there = named.iter().filter(|block| model.contains(*block)).count();
                let (request, expected) = match kind {
                    0 => (Request::Plug(span), match () {
                        () if !sane || there > 0 => Response::Wrong,
                        () if model.len() + named.len() > wanted as usize => Response::Denied,
                        () if first + u64::from(count) > wanted => Response::Busy,
                        () => { model.extend(named); Response::Done }
                    }),
                    1 => (Request::Unplug(span), if sane && there == named.len() {
                        named.iter().for_each(|block| { model.remove(block); });
                        Response::Done
                    } else { Response::Wrong }),
                    2 => (Request::State(span), match there {
                        _ if !sane => Response::Wrong,
                        0 => Response::State(Plugged::None),
                        all if all == named.len() => Response::State(Plugged::All),
                        _ => Response::State(Plugged::Some),
                    }),
                    _ => { model.clear(); (Request::UnplugAll, Response::Done) }
                };
                prop_assert_eq!(ask(&mut blocks, request), expected, "{:?} {}", request, wanted);
                prop_assert_eq!(blocks.plugged(), model.len() as u64 * BLOCK);
                prop_assert!(blocks.plugged() <= blocks.wanted() && blocks.wanted() == wanted * BLOCK);
            }
        }
    }
}
