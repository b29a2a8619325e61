//! Which frontend leads, and which version the cluster has: asked of whichever answers, without a
//! backend.

use std::time::Duration;

use mysql_async::Conn;

use super::refusal::{Failed, frontends_of, is_forwarding, version_of, why};
use super::{Client, run};
use crate::cluster::starrocks::options::Address;
use crate::cluster::starrocks::print_statement::FeVersion;
use crate::error::{Error, ErrorKind};
use crate::names::Timestamp;

/// After so long a new connection asks again which frontend leads.
const LEADER_MS_MAX: i64 = 60_000;
/// After so long those ask who must not be told by another.
const LEADER_MS_MAX_OF_RESTORES: i64 = 5_000;
/// Which frontend leads, as the frontends say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) enum Leader {
    /// As SHOW FRONTENDS names it.
    Known(Address),
    /// None does: there is no quorum, or it has just died.
    Nobody,
    /// This user may not ask, or nobody has asked yet.
    #[default]
    Unknown,
}

/// What a frontend says of itself and the others.
struct Greeting {
    version: Option<FeVersion>,
    frontends: Vec<Address>,
    leader: Leader,
}

impl Client {
    /// Asks a frontend for the version, and which of them leads. Nothing is asked that would need a
    /// backend, but as the last resort.
    async fn greet(&self, conn: &mut Conn) -> Result<Greeting, Failed> {
        let limit = self.options.connect_timeout.max(Duration::from_secs(5));
        self.within(limit, async {
            let mut version = None;
            let (frontends, leader) = match run(conn, "SHOW FRONTENDS").await {
                Ok(answer) => {
                    version = version_of(&answer).and_then(|text| FeVersion::parse(&text));
                    let told = frontends_of(&answer);
                    let leads = told.iter().find(|(_, leads)| *leads);
                    let leader = leads.map_or(Leader::Nobody, |(a, _)| Leader::Known(a.clone()));
                    (
                        told.into_iter().map(|(address, _)| address).collect(),
                        leader,
                    )
                }
                Err(Failed::Server(e)) if is_forwarding(&e.message) => (Vec::new(), Leader::Nobody),
                // Who may not ask is served by whichever answers: followers pass statements on.
                Err(Failed::Server(_)) => (Vec::new(), Leader::Unknown),
                Err(e) => return Err(e),
            };
            let of_variables = [
                "SHOW VARIABLES LIKE 'version_comment'",
                "SELECT @@version_comment",
            ];
            for question in of_variables {
                if version.is_some() || self.last_version().is_some() {
                    break;
                }
                version = match run(conn, question).await {
                    Ok(answer) => {
                        let values = answer.rows.into_iter().flatten().flatten();
                        values
                            .filter_map(|text| FeVersion::parse(&text))
                            .next_back()
                    }
                    Err(Failed::Server(_)) => None,
                    Err(e) => return Err(e),
                };
            }
            Ok(Greeting {
                version,
                frontends,
                leader,
            })
        })
        .await
    }

    /// What a frontend has said holds from this time on.
    fn take_greeting(&self, greeting: Greeting, target: Address, now: Timestamp) {
        let mut known = self.known.lock();
        if known.target.as_ref() != Some(&target) {
            known.idle.clear();
        }
        known.target = Some(target);
        known.leader = greeting.leader;
        // What is not told now is as it was told before.
        known.version = greeting.version.or(known.version);
        if !greeting.frontends.is_empty() {
            known.named = greeting.frontends;
        }
        known.greeted_at = Some(now);
    }

    /// Finds out which frontend leads, unless that was done a moment ago: how a restore goes,
    /// others tell late.
    pub async fn settle_leader(&self) -> Result<(), Error> {
        let now = self.env.now();
        let asked_at = self.known.lock().greeted_at;
        if asked_at.is_some_and(|at| (0..LEADER_MS_MAX_OF_RESTORES).contains(&(now.0 - at.0))) {
            return Ok(());
        }
        let told = match self.query("SHOW FRONTENDS").await {
            Ok(answer) => frontends_of(&answer),
            // Whoever answers is believed: there is no way to know better.
            Err(e) if e.kind == ErrorKind::InsufficientPrivilege => {
                self.known.lock().greeted_at = Some(now);
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let leads = told
            .iter()
            .find(|(_, leads)| *leads)
            .map(|(a, _)| a.clone());
        let mut known = self.known.lock();
        known.greeted_at = Some(now);
        let leader = leads.map_or(Leader::Nobody, Leader::Known);
        if known.leader != leader {
            // The next connection goes to it.
            (known.leader, known.target, known.greeted_at) = (leader, None, None);
            known.idle.clear();
        }
        Ok(())
    }

    /// A new connection to the leader, or to any frontend when the leader cannot be told or
    /// reached.
    pub(super) async fn connect(&self) -> Result<(Address, Conn), Error> {
        let now = self.env.now();
        let (target, named) = {
            let known = self.known.lock();
            let is_fresh = known
                .greeted_at
                .is_some_and(|at| now.0 - at.0 < LEADER_MS_MAX);
            (
                known.target.clone().filter(|_| is_fresh),
                known.named.clone(),
            )
        };
        let mut tried: Vec<String> = Vec::new();
        if let Some(target) = &target {
            match self.open(target).await {
                Ok(conn) => return Ok((target.clone(), conn)),
                Err(e) => {
                    tried.push(format!("{target}: {}", why(&e)));
                    let mut known = self.known.lock();
                    (known.target, known.idle) = (None, Vec::new());
                }
            }
        }
        let mut candidates = self.options.frontends.clone();
        candidates.extend(
            named
                .into_iter()
                .filter(|n| !self.options.frontends.contains(n)),
        );
        // One that knows of no leader, where nobody knows more.
        let mut leaderless = None;
        for candidate in candidates
            .iter()
            .filter(|c| Some(*c) != target.as_ref())
            .chain(target.as_ref())
        {
            let greeted = match self.open(candidate).await {
                Ok(mut conn) => self.greet(&mut conn).await.map(|told| (conn, told)),
                Err(e) => Err(e),
            };
            let (conn, greeting) = match greeted {
                Ok(greeted) => greeted,
                Err(e) => {
                    tried.push(format!("{candidate}: {}", why(&e)));
                    continue;
                }
            };
            let (address, conn) = match &greeting.leader {
                Leader::Nobody => {
                    leaderless.get_or_insert((candidate.clone(), conn, greeting));
                    continue;
                }
                Leader::Known(leader) if greeting.frontends.len() > 1 => {
                    // It is the candidate, or it cannot be reached: a follower passes on what only
                    // the leader can do.
                    let reached = self.reach(leader, candidate).await;
                    reached.unwrap_or((candidate.clone(), conn))
                }
                Leader::Known(_) | Leader::Unknown => (candidate.clone(), conn),
            };
            self.take_greeting(greeting, address.clone(), now);
            return Ok((address, conn));
        }
        if let Some((address, conn, greeting)) = leaderless {
            self.take_greeting(greeting, address.clone(), now);
            return Ok((address, conn));
        }
        Err(self.unreachable(&tried.join("; ")))
    }

    /// A connection to the leader as SHOW FRONTENDS names it; `None` if the candidate is it, or it
    /// cannot be reached. It is named by its IP address there; where the settings have a name for
    /// that, the name is used, as certificates have names.
    async fn reach(&self, leader: &Address, candidate: &Address) -> Option<(Address, Conn)> {
        let mut by_name = leader.clone();
        for configured in self
            .options
            .frontends
            .iter()
            .filter(|c| c.port == leader.port)
        {
            let known = tokio::net::lookup_host((configured.host.as_str(), configured.port)).await;
            let is_it = configured.host == leader.host
                || known.is_ok_and(|mut found| found.any(|a| a.ip().to_string() == leader.host));
            if is_it {
                by_name = configured.clone();
                break;
            }
        }
        if &by_name == candidate {
            return None;
        }
        let conn = self.open(&by_name).await.ok()?;
        Some((by_name, conn))
    }
}
