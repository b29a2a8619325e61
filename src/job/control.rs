//! What a job is told while it runs, whatever its kind: to pause, to go on, how fast to go. None of
//! it changes what the job does.

use serde::{Deserialize, Serialize};

use super::Actor;
use crate::names::{JobId, Timestamp};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    pub paused_at: Option<Timestamp>,
    /// How long it was paused before, milliseconds: that does not count as its time.
    pub paused_ms: i64,
    /// Its own limit, if a statement has changed it.
    pub pace: Option<Pace>,
}

/// The bytes of data that a job may move in a second. The names are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    Unlimited,
    BytesPerSecond(u64),
}

impl Pace {
    pub fn bytes_per_second(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::BytesPerSecond(bytes) => Some(bytes),
        }
    }
}

/// Who says something to a job. What is stored of a user is the name alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Speaker {
    User(String),
    /// A job that this one is a part of.
    Job {
        job: JobId,
    },
}

impl std::fmt::Display for Speaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(name) => f.write_str(name),
            Self::Job { job } => write!(f, "job {job}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlEvent {
    /// PAUSE JOB
    Paused { by: Speaker },
    /// RESUME JOB
    Resumed { by: Speaker },
    /// ALTER JOB … SET ("max_bytes_per_second" = …)
    Paced { pace: Pace, by: Speaker },
}

impl ControlEvent {
    /// Its name, for `system.job_events`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Paused { .. } => "paused",
            Self::Resumed { .. } => "resumed",
            Self::Paced { .. } => "paced",
        }
    }

    pub(super) fn actor(&self) -> Actor {
        let (Self::Paused { by } | Self::Resumed { by } | Self::Paced { by, .. }) = self;
        match by {
            Speaker::User(_) => Actor::User,
            Speaker::Job { .. } => Actor::Runner,
        }
    }

    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Paused { by } => format!("paused by {by}"),
            Self::Resumed { by } => format!("resumed by {by}"),
            Self::Paced { pace, by } => match pace {
                Pace::Unlimited => format!("{by} took its limit away"),
                Pace::BytesPerSecond(bytes) => {
                    format!("{by} limited it to {bytes} bytes a second")
                }
            },
        }
    }
}

impl Control {
    pub fn is_paused(&self) -> bool {
        self.paused_at.is_some()
    }

    /// `false`: this cannot be said now.
    pub(super) fn apply(&mut self, event: &ControlEvent, at: Timestamp) -> bool {
        match (event, self.paused_at) {
            (ControlEvent::Paused { .. }, None) => self.paused_at = Some(at),
            (ControlEvent::Resumed { .. }, Some(since)) => {
                self.paused_at = None;
                // A clock that was set back takes nothing from the job's time.
                self.paused_ms += (at.0 - since.0).max(0);
            }
            (ControlEvent::Paced { pace, .. }, _) => self.pace = Some(*pace),
            (ControlEvent::Paused { .. }, Some(_)) | (ControlEvent::Resumed { .. }, None) => {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_names_do_not_change() {
        let by = || Speaker::User("u".into());
        let events = [
            ControlEvent::Paused { by: by() },
            ControlEvent::Resumed { by: by() },
            ControlEvent::Paced {
                pace: Pace::Unlimited,
                by: by(),
            },
            ControlEvent::Paced {
                pace: Pace::BytesPerSecond(5),
                by: Speaker::Job { job: JobId(4) },
            },
        ];
        for event in &events {
            let stored = serde_json::to_string(event).expect("serializes");
            assert_eq!(
                serde_json::from_str::<ControlEvent>(&stored).expect("reads"),
                *event
            );
        }
        let stored = events.map(|e| serde_json::to_string(&e).expect("serializes"));
        assert_eq!(
            stored,
            [
                r#"{"paused":{"by":"u"}}"#,
                r#"{"resumed":{"by":"u"}}"#,
                r#"{"paced":{"pace":"unlimited","by":"u"}}"#,
                r#"{"paced":{"pace":{"bytes_per_second":5},"by":{"job":4}}}"#,
            ]
        );
    }

    #[test]
    fn a_pause_does_not_count_and_is_said_once() {
        let by = || Speaker::User("u".into());
        let mut control = Control::default();
        let mut say = |event, at| control.apply(&event, Timestamp(at));
        assert!(!say(ControlEvent::Resumed { by: by() }, 5));
        assert!(say(ControlEvent::Paused { by: by() }, 10));
        assert!(!say(ControlEvent::Paused { by: by() }, 11));
        assert!(say(ControlEvent::Resumed { by: by() }, 25));
        assert!(say(ControlEvent::Paused { by: by() }, 30));
        assert!(say(ControlEvent::Resumed { by: by() }, 20));
        assert_eq!((control.paused_ms, control.is_paused()), (15, false));
    }
}
