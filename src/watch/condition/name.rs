//! The alerts there are, and how fast a person should look.

/// The alerts there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertName {
    /// Something waits for its receiver for too long.
    Undelivered,
    /// A receiver rejected something, or it was given up.
    DeadLetter,
    /// The content of dead letters is about to go.
    DeadLetterEnding,
    /// What is parked comes near its bound in number, bytes or age.
    Parked,
    /// Parked parts fail by a fault whenever they are tried.
    ParkedFailing,
    /// A receiver that is pushed to takes nothing; its queue stays.
    ReceiverPaused,
    /// A key or certificate is about to end.
    Expiring,
    /// A message breaks the law of conservation.
    Unaccounted,
    /// An open case of which nobody said anything for three years.
    CaseSilent,
    /// The clock of a node jumped.
    ClockJump,
    /// The clock of a node is not that of the database.
    ClockDiffers,
    /// A node cannot use all of the stored configuration.
    ConfigurationUnusable,
    /// The database does not answer a node.
    DatabaseFailing,
}

impl AlertName {
    /// Every alert.
    pub const ALL: &'static [Self] = &[
        Self::Undelivered,
        Self::DeadLetter,
        Self::DeadLetterEnding,
        Self::Parked,
        Self::ParkedFailing,
        Self::ReceiverPaused,
        Self::Expiring,
        Self::Unaccounted,
        Self::CaseSilent,
        Self::ClockJump,
        Self::ClockDiffers,
        Self::ConfigurationUnusable,
        Self::DatabaseFailing,
    ];

    /// The word in messages, metrics and the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Undelivered => "undelivered",
            Self::DeadLetter => "dead_letter",
            Self::DeadLetterEnding => "dead_letter_ending",
            Self::Parked => "parked",
            Self::ParkedFailing => "parked_failing",
            Self::ReceiverPaused => "receiver_paused",
            Self::Expiring => "expiring",
            Self::Unaccounted => "unaccounted",
            Self::CaseSilent => "case_silent",
            Self::ClockJump => "clock_jump",
            Self::ClockDiffers => "clock_differs",
            Self::ConfigurationUnusable => "configuration_unusable",
            Self::DatabaseFailing => "database_failing",
        }
    }

    /// How fast a person should look.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::Undelivered
            | Self::ParkedFailing
            | Self::ClockDiffers
            | Self::Unaccounted
            | Self::ConfigurationUnusable
            | Self::DatabaseFailing => Severity::Critical,
            Self::DeadLetter
            | Self::DeadLetterEnding
            | Self::Parked
            | Self::ReceiverPaused
            | Self::Expiring
            | Self::CaseSilent
            | Self::ClockJump => Severity::Warning,
        }
    }

    /// What it means, for the message and for people.
    #[must_use]
    pub fn summary(self) -> &'static str {
        match self {
            Self::Undelivered => {
                "releases wait for their receiver for longer than the route allows"
            }
            Self::DeadLetter => "releases were rejected or given up and wait for a decision",
            Self::DeadLetterEnding => {
                "the content of dead letters that nobody decided about goes within 14 days"
            }
            Self::Parked => "parked parts come near the bound of their sender",
            Self::ParkedFailing => {
                "parked parts cannot be released; newer reports of their persons go before them"
            }
            Self::ReceiverPaused => "a receiver that is pushed to takes nothing; its queue stays",
            Self::Expiring => "a key or certificate ends within 14 days",
            Self::Unaccounted => "accepted messages miss a part, or have a part in no state",
            Self::CaseSilent => "open cases had no message for three years",
            Self::ClockJump => "the clock of a node jumped, by this many seconds",
            Self::ClockDiffers => {
                "the clock of a node is not that of the database, by this many seconds"
            }
            Self::ConfigurationUnusable => {
                "a node cannot use all of the stored configuration; these parties cannot send to it"
            }
            Self::DatabaseFailing => "the database does not answer a node",
        }
    }
}

/// How fast a person should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Now: a term or a message is at stake.
    Critical,
    /// Today.
    Warning,
}

impl Severity {
    /// `critical` or `warning`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}
