//! What every kind of job is: a pure state machine over its events.

use super::{End, IllegalEvent, Phase};

/// A machine. What it holds changes by [`Self::apply`] alone, so it is the fold of its events.
pub trait Machine {
    /// Something to do. Doing it twice does the same thing.
    type Command: Copy + PartialEq;
    /// Something that happened.
    type Event;

    /// What may be done now, in parallel. Nothing: the job is over.
    fn commands(&self) -> Vec<Self::Command>;

    fn allows(&self, command: Self::Command) -> bool {
        self.commands().contains(&command)
    }

    /// What an event leads to. One that cannot happen changes nothing.
    fn apply(&mut self, event: &Self::Event) -> Result<(), IllegalEvent>;

    /// Where the job stands.
    fn phase(&self) -> Phase;

    /// How it ended, if it has; clean-up may still be to do.
    fn end(&self) -> Option<End>;

    /// Whether nothing is left to do, clean-up included.
    fn is_over(&self) -> bool;

    /// Whether a cancel can still be carried out: not once the commit may have happened.
    fn can_cancel(&self) -> bool;
}

#[cfg(test)]
pub(super) mod tests {
    use std::fmt::Debug;

    use super::*;

    /// What is stored of an event begins with its name, whatever the variant is called.
    pub fn check_names<E: serde::Serialize>(events: &[E], name: impl Fn(&E) -> &'static str) {
        for event in events {
            let stored = serde_json::to_value(event).expect("serializes");
            let tag = stored
                .as_str()
                .or_else(|| stored.as_object()?.keys().next().map(String::as_str));
            assert_eq!(tag, Some(name(event)));
        }
    }

    /// Tries every event in every state. `expected` has the name of the phase that it leads to, or
    /// nothing where it cannot happen.
    pub fn check_table<M, const N: usize>(states: &[M], events: &[M::Event], expected: &[[&str; N]])
    where
        M: Machine<Event: Debug> + Clone + PartialEq + Debug,
    {
        assert_eq!((states.len(), events.len()), (expected.len(), N));
        for (state, row) in states.iter().zip(expected) {
            for (event, name) in events.iter().zip(row) {
                let mut after = state.clone();
                let found = after.apply(event).map_or("", |()| after.phase().name());
                assert_eq!(found, *name, "{state:?} and {event:?}");
                if found.is_empty() {
                    assert_eq!(after, *state, "what cannot happen changes nothing");
                } else {
                    // Clean-up that is done twice would be done for ever.
                    assert_ne!(after, *state, "{event:?} changes {state:?}");
                    assert_eq!(after.is_over(), after.commands().is_empty(), "{after:?}");
                }
            }
            assert_eq!(state.is_over(), state.commands().is_empty(), "{state:?}");
            assert!(
                state
                    .commands()
                    .into_iter()
                    .all(|command| state.allows(command)),
                "{state:?}"
            );
            assert!(state.end().is_none() || !state.can_cancel(), "{state:?}");
            assert_eq!(state.end().is_some(), state.phase().is_over(), "{state:?}");
        }
    }
}
