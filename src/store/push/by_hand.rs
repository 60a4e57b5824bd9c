//! What a person does: stops and resumes a receiver.

use super::claim::LOCK_RECEIVER;
use crate::store::backend::{Connection, query};
use crate::store::bells::Rings;
use crate::store::writer::Change;

pub(super) const STOP: &str =
    "UPDATE push_receiver SET stopped = TRUE, paused_until = NULL, reason = $1,
    changed_at = $2 WHERE party = $3 AND test = $4 AND NOT stopped";
const RESUME: &str = "UPDATE push_receiver SET failures = 0, paused_until = NULL, stopped = FALSE,
    reason = NULL, changed_at = $1 WHERE party = $2 AND test = $3
    AND (stopped OR failures > 0)";
const DUE_NOW: &str = "UPDATE delivery SET due_at = 0
    WHERE party = $1 AND test = $2 AND finished_at IS NULL AND due_at > 0";

pub(super) struct Stop {
    pub(super) party: String,
    pub(super) test: bool,
    pub(super) reason: String,
}

impl Change for Stop {
    type Output = bool;

    async fn run(&self, connection: &mut Connection) -> Result<bool, sqlx::Error> {
        query(LOCK_RECEIVER)
            .bind(&self.party)
            .bind(self.test)
            .fetch_one(&mut *connection)
            .await?;
        let changed = query(STOP)
            .bind(&self.reason)
            .bind(connection.now_ms())
            .bind(&self.party)
            .bind(self.test)
            .execute(connection)
            .await?;
        Ok(changed > 0)
    }
}

pub(super) struct Resume {
    pub(super) party: String,
    pub(super) test: bool,
}

impl Change for Resume {
    type Output = bool;

    async fn run(&self, connection: &mut Connection) -> Result<bool, sqlx::Error> {
        let changed = query(RESUME)
            .bind(connection.now_ms())
            .bind(&self.party)
            .bind(self.test)
            .execute(&mut *connection)
            .await?;
        query(DUE_NOW)
            .bind(&self.party)
            .bind(self.test)
            .execute(connection)
            .await?;
        Ok(changed > 0)
    }

    fn ring(&self, _resumed: &bool, rings: &mut Rings) {
        rings.ring(&self.party, self.test);
    }
}
