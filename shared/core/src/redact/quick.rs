//! Whether an expression matches somewhere in bytes.
//!
//! An automaton takes a step for each byte and each step waits for the one before, so a processor that could take several at once has little to do. Here four walk side by side, each through a part of the
//! bytes. Each goes on beyond its part until it is in the state in which the next one was there: from then on they are one. The look at all that is kept was 8 % of ingest, and is 3 % so (`perf` of
//! `scripts/bench socket`).

use std::panic::{RefUnwindSafe, UnwindSafe};

use regex::bytes::Regex;
use regex_automata::{
    Input,
    hybrid::{
        LazyStateID,
        dfa::{Cache, DFA},
    },
    nfa::thompson::{self, WhichCaptures},
    util::{pool::Pool, syntax},
};

use super::patterns::compile;

const WALKERS: usize = 4;
/// Below this the four would do little but begin.
const LEAST_BYTES: usize = 256;

/// An expression that is only asked whether it matches.
#[derive(Debug)]
pub(super) struct Quick {
    regex: Regex,
    /// `None`: an expression that no automaton of this kind knows.
    automaton: Option<Automaton>,
}

#[derive(Debug)]
struct Automaton {
    dfa: DFA,
    /// States as they were first met, a cache for each thread.
    caches: Pool<Cache, MakeCache>,
}

type MakeCache = Box<dyn Fn() -> Cache + Send + Sync + UnwindSafe + RefUnwindSafe>;

/// Why a walk ends before its bytes do.
enum Stop {
    Match,
    /// The automaton does not know.
    Undecided,
}

impl Quick {
    /// # Errors
    /// No expression, or a too large one.
    pub(super) fn new(expression: &str) -> Result<Self, String> {
        Ok(Self {
            regex: compile(expression)?,
            automaton: Automaton::new(expression),
        })
    }

    pub(super) fn is_match(&self, bytes: &[u8]) -> bool {
        let automaton = self.automaton.as_ref();
        let automaton = automaton.filter(|_| bytes.len() >= LEAST_BYTES);
        match automaton.map(|automaton| automaton.walk(bytes)) {
            Some(Ok(())) => false,
            Some(Err(Stop::Match)) => true,
            Some(Err(Stop::Undecided)) | None => self.regex.is_match(bytes),
        }
    }
}

impl Automaton {
    /// As [`compile`] reads expressions.
    fn new(expression: &str) -> Option<Self> {
        let dfa = DFA::builder()
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .thompson(
                thompson::Config::new()
                    .utf8(false)
                    .which_captures(WhichCaptures::None),
            )
            .build(expression)
            .ok()?;
        let of = dfa.clone();
        Some(Self {
            dfa,
            caches: Pool::new(Box::new(move || of.create_cache())),
        })
    }

    /// `Ok`: nothing matches.
    fn walk(&self, bytes: &[u8]) -> Result<(), Stop> {
        let mut cache = self.caches.get();
        let mut walk = Walk {
            dfa: &self.dfa,
            clears: cache.clear_count(),
            cache: &mut cache,
        };
        let length = bytes.len() / WALKERS;
        let (one, rest) = bytes.split_at(length);
        let (two, rest) = rest.split_at(length);
        let (three, rest) = rest.split_at(length);
        let (four, rest) = rest.split_at(length);
        let mut states = [
            walk.start(bytes, 0)?,
            walk.start(bytes, length)?,
            walk.start(bytes, 2 * length)?,
            walk.start(bytes, 3 * length)?,
        ];
        let parts = one.iter().zip(two).zip(three).zip(four);
        let mut parts = parts.map(|(((one, two), three), four)| [*one, *two, *three, *four]);
        while let Some(met) = walk.run(&mut states, &mut parts) {
            for (state, byte) in states.iter_mut().zip(met) {
                *state = walk.step(*state, byte)?;
            }
        }
        let [one, two, three, four] = states;
        for (state, part) in [(one, 1), (two, 2), (three, 3)] {
            walk.join(state, bytes, part * length)?;
        }
        let last = rest
            .iter()
            .try_fold(four, |at, byte| walk.step(at, *byte))?;
        walk.end(last)
    }
}

/// States are numbered as they are met; a cache that is cleared begins anew, and all that was known of numbers is void.
struct Walk<'a> {
    dfa: &'a DFA,
    cache: &'a mut Cache,
    clears: usize,
}

impl Walk<'_> {
    /// Of one who begins here.
    fn start(&mut self, bytes: &[u8], at: usize) -> Result<LazyStateID, Stop> {
        let input = Input::new(bytes).range(at..);
        let state = self.dfa.start_state_forward(self.cache, &input);
        self.known(state.map_err(|_| Stop::Undecided)?)
    }

    /// Steps as long as all of them are known, up to bytes of which one asks for another step. Nothing is written meanwhile, so where the states lie need not be looked up again.
    fn run(
        &self,
        states: &mut [LazyStateID; WALKERS],
        parts: &mut impl Iterator<Item = [u8; WALKERS]>,
    ) -> Option<[u8; WALKERS]> {
        let (dfa, cache) = (self.dfa, &*self.cache);
        let mut at = *states;
        let met = parts.find(|[one, two, three, four]| {
            let next = [
                dfa.next_state_untagged(cache, at[0], *one),
                dfa.next_state_untagged(cache, at[1], *two),
                dfa.next_state_untagged(cache, at[2], *three),
                dfa.next_state_untagged(cache, at[3], *four),
            ];
            let is_known = next
                .iter()
                .fold(true, |known, state| known & !state.is_tagged());
            if is_known {
                at = next;
            }
            !is_known
        });
        *states = at;
        met
    }

    #[inline]
    fn step(&mut self, state: LazyStateID, byte: u8) -> Result<LazyStateID, Stop> {
        let next = self.dfa.next_state_untagged(self.cache, state, byte);
        if next.is_tagged() {
            return self.find(state, byte);
        }
        Ok(next)
    }

    /// A step that was not taken before, or to a state of note.
    #[cold]
    fn find(&mut self, state: LazyStateID, byte: u8) -> Result<LazyStateID, Stop> {
        let next = self.dfa.next_state(self.cache, state, byte);
        self.known(next.map_err(|_| Stop::Undecided)?)
    }

    fn known(&self, state: LazyStateID) -> Result<LazyStateID, Stop> {
        match state {
            _ if self.cache.clear_count() != self.clears => Err(Stop::Undecided),
            state if state.is_match() => Err(Stop::Match),
            state if state.is_tagged() => Err(Stop::Undecided),
            state => Ok(state),
        }
    }

    /// Goes on to where whoever began at `from` is in the same state.
    fn join(&mut self, mut state: LazyStateID, bytes: &[u8], from: usize) -> Result<(), Stop> {
        let mut other = self.start(bytes, from)?;
        for byte in bytes.iter().skip(from) {
            if state == other {
                return Ok(());
            }
            state = self.step(state, *byte)?;
            other = self.step(other, *byte)?;
        }
        self.end(state)
    }

    /// Some things are only seen at the end.
    fn end(&mut self, state: LazyStateID) -> Result<(), Stop> {
        let last = self.dfa.next_eoi_state(self.cache, state);
        match last.map_err(|_| Stop::Undecided)? {
            last if last.is_match() => Err(Stop::Match),
            _ if self.cache.clear_count() != self.clears => Err(Stop::Undecided),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// What begins, goes on and ends in many ways; some of it looks at what stands before and behind.
    const EXPRESSIONS: [&str; 4] = [
        r"sk-[A-Za-z0-9_-]{20}|://[^\s/:@]*:[^\s/@]+@|(?i:bearer)(?:\s|%20)|[2-6](?:[ -]?[0-9]){12}",
        r"\bkey\b|^sk|tion$|x\b",
        r"k(?s:.*)z",
        r"[^a]{40}z",
    ];

    fn text() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("sk-".to_owned()),
            Just("://a:b@".to_owned()),
            Just("Bearer ".to_owned()),
            Just("key".to_owned()),
            "[a-z0-9 _-]{0,40}",
            "(4[0-9 ]{0,20})",
            "\\PC{0,8}",
            "[b-y ]{0,300}",
        ];
        vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn four_see_what_one_sees(text in text(), cut in 0..64_usize) {
            for expression in EXPRESSIONS {
                let quick = Quick::new(expression).unwrap();
                prop_assert!(quick.automaton.is_some());
                let text = text.get(cut..).unwrap_or_default();
                prop_assert_eq!(quick.is_match(text), quick.regex.is_match(text), "{}", expression);
            }
        }
    }

    #[test]
    fn what_stands_across_two_parts_is_seen_wherever_it_stands() {
        let quick = Quick::new(r"sk-[A-Za-z0-9_-]{20}").unwrap();
        let key = format!("sk-{}", "a1".repeat(10));
        for before in 0..600 {
            let text = "b".repeat(before) + " " + &key + &" ".repeat(600 - before);
            assert!(quick.is_match(text.as_bytes()), "{before}");
            let short = text.replace("a1 ", "a  ");
            assert!(!quick.is_match(short.as_bytes()), "{before}");
        }
    }

    #[test]
    fn a_cache_that_is_too_small_is_no_answer() {
        // Which of the last twenty bytes were an `a`: a million states.
        let quick = Quick::new(r"a[abc]{20}d").unwrap();
        let mut seed = 1_u32;
        let mut text = vec![0; 100_000];
        for byte in &mut text {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = b'a' + (seed >> 24) as u8 % 3;
        }
        let walked = |text: &[u8]| quick.automaton.as_ref().unwrap().walk(text);
        assert!(matches!(walked(&text), Err(Stop::Undecided)));
        assert!(!quick.is_match(&text));
        text.push(b'd');
        let last_a = text.len() - 22;
        text[last_a] = b'a';
        assert!(quick.is_match(&text));
    }
}
