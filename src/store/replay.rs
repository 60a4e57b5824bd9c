//! Many dead letters at once: a preview in numbers, and then just that.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Store;
use super::dead::{DeadFilter, DeadLetter};
use super::error::Error;
use super::revive::{ATTEMPTS, Overtaken};
use super::survey::{Candidate, Survey, by_inbox};
use crate::domain::{Domain, PartyId, TenantId};

/// Dead letters that one transaction makes due again.
const STEP: usize = 300;

/// What came, or would come, of making many dead letters due again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Dead letters that the filter names.
    pub matched: u64,
    /// How many of them are due again.
    pub due: u64,
    /// How many were overtaken, whether they went or not.
    pub overtaken: u64,
    /// The same by kind.
    pub groups: BTreeMap<ReplayGroup, ReplayCount>,
}

/// What the counts of a replay are added up by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReplayGroup {
    /// Whose inbox.
    pub party: PartyId,
    /// True for test traffic.
    pub test: bool,
    /// Whose employees.
    pub tenant: TenantId,
    /// Domain of the route.
    pub domain: Domain,
    /// Name of the message.
    pub message_type: String,
    /// Code of the rejection, when it can be shown.
    pub code: Option<String>,
}

/// Counts of a [`ReplayGroup`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayCount {
    /// Dead letters.
    pub matched: u64,
    /// Due again.
    pub due: u64,
    /// Overtaken.
    pub overtaken: u64,
}

impl Store {
    /// What [`Self::replay`] would do now.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] or [`Error::Damaged`].
    pub async fn preview_replay(
        &self,
        filter: &DeadFilter,
        overtaken: Overtaken,
    ) -> Result<Replay, Error> {
        let mut tally = Tally::default();
        for candidates in tally.start(self.candidates(filter).await?) {
            let survey = self.survey(candidates).await?;
            tally.count(&survey, &survey.going(overtaken));
        }
        Ok(tally.replay)
    }

    /// Makes every dead letter due again that the filter names, in the order
    /// in which they were made, some hundred at a time. What was done stands
    /// when a later step fails; calling again goes on.
    ///
    /// # Errors
    ///
    /// As [`Self::retry`].
    pub async fn replay(&self, filter: &DeadFilter, overtaken: Overtaken) -> Result<Replay, Error> {
        let mut tally = Tally::default();
        for candidates in tally.start(self.candidates(filter).await?) {
            for step in candidates.chunks(STEP) {
                self.replay_step(step, overtaken, &mut tally).await?;
            }
        }
        Ok(tally.replay)
    }

    async fn replay_step(
        &self,
        step: &[Candidate],
        overtaken: Overtaken,
        tally: &mut Tally,
    ) -> Result<(), Error> {
        let mut step = step.to_vec();
        for _ in 0..ATTEMPTS {
            let survey = self.survey(step).await?;
            let going = survey.going(overtaken);
            if going.is_empty() || self.revive(&survey, &going).await?.is_some() {
                tally.count(&survey, &going);
                return Ok(());
            }
            step = self.without_others(survey.into_candidates()).await?;
        }
        Err(Error::Conflict)
    }

    /// Without those that somebody else made due or discarded meanwhile.
    async fn without_others(&self, candidates: Vec<Candidate>) -> Result<Vec<Candidate>, Error> {
        let ids: Vec<&str> = candidates.iter().map(|one| one.id.as_str()).collect();
        let dead = self.still_dead(&ids).await?;
        let mut still = candidates;
        still.retain(|one| dead.contains(&(one.id.clone(), one.sequence)));
        Ok(still)
    }
}

/// Counts of a replay while it goes.
#[derive(Default)]
struct Tally {
    replay: Replay,
    groups: HashMap<String, ReplayGroup>,
}

impl Tally {
    /// Notes what each letter is counted under.
    fn start(&mut self, found: Vec<(DeadLetter, Candidate)>) -> Vec<Vec<Candidate>> {
        let (letters, candidates): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        for letter in letters {
            let group = ReplayGroup {
                party: letter.party,
                test: letter.test,
                tenant: letter.tenant,
                domain: letter.domain,
                message_type: letter.message_type,
                code: letter.rejection.code,
            };
            self.groups.insert(letter.id, group);
        }
        by_inbox(candidates)
    }

    fn count(&mut self, survey: &Survey, going: &BTreeSet<usize>) {
        for (at, (id, by)) in survey.overtaken().enumerate() {
            let Some(group) = self.groups.get(&id) else {
                continue;
            };
            let group = self.replay.groups.entry(group.clone()).or_default();
            let (due, overtaken) = (u64::from(going.contains(&at)), u64::from(by > 0));
            group.matched += 1;
            group.due += due;
            group.overtaken += overtaken;
            self.replay.matched += 1;
            self.replay.due += due;
            self.replay.overtaken += overtaken;
        }
    }
}
