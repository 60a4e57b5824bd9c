//! Watching: what operators have to know, told once.
//!
//! `condition` says what holds, purely, from what was observed, and `changes`
//! what of it is news; `age` says how long something may wait. `look` observes every few seconds, settles the
//! alerts in the store, and walks along the law of conservation. `courier`
//! brings messages to the webhook. Nothing here names a person.

mod age;
mod changes;
mod condition;
mod courier;
mod look;
mod message;

pub use age::{alarm_hours, default_alarm_hours};
pub use condition::{
    AlertName, Bounds, Condition, Ending, Endings, Observed, PassedOver, Severity, Subject,
    conditions,
};
pub use courier::{CourierError, check_webhook};
pub use look::{Board, Watch};
pub use message::{Transition, sign};
