//! The suite that every log must pass: one function for each thing the contract promises.
//!
//! A log's own tests call [`crate::conformance_tests!`] with an expression that makes a [`Fixture`]; each rule becomes
//! a test of its own. Built only with the feature `testing`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a suite of tests fails by panicking, and its functions' names say what they show"
)]

pub mod atomicity;
pub mod concurrency;
pub mod durability;
pub mod kit;
pub mod marks;
pub mod order;
pub mod ownership;
pub mod reading;
pub mod retention;
pub mod tables;
pub mod topics;

use std::fmt;
use std::sync::Arc;

use crate::{Log, ManualClock};

/// How a log ends before it is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// [`Log::close`].
    Close,
    /// As with a power cut at this moment: what was not synced is lost.
    Crash,
}

/// Ends a log and opens what is left of it.
pub type Reopen = Box<dyn FnMut(Arc<dyn Log>, End) -> Arc<dyn Log> + Send>;

/// A log under test.
pub struct Fixture {
    /// An empty log.
    pub log: Arc<dyn Log>,
    /// The clock that its retention follows.
    pub clock: Arc<ManualClock>,
    /// `None` for a log that does not outlive its process.
    pub reopen: Option<Reopen>,
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture").field("reopens", &self.reopen.is_some()).finish_non_exhaustive()
    }
}

impl Fixture {
    /// Ends the log and opens it again; `false` where it cannot outlive its process.
    pub async fn end(&mut self, how: End) -> bool {
        let Some(reopen) = &mut self.reopen else { return false };
        if how == End::Close {
            self.log.close().await.unwrap();
        }
        // The log must be gone before the next has its files.
        let old = std::mem::replace(&mut self.log, Arc::new(crate::MemoryLog::new()));
        self.log = reopen(old, how);
        true
    }
}

/// Makes a test of every rule; `$fixture` is an expression that makes a [`Fixture`] with an empty log.
#[macro_export]
macro_rules! conformance_tests {
    ($fixture:expr) => {
        $crate::conformance_tests!(@ $fixture;
            atomicity: a_commit_is_whole_over_topics_and_positions,
            atomicity: a_refused_commit_leaves_nothing,
            atomicity: a_wrong_from_is_refused,
            atomicity: from_follows_commits_on_their_way,
            atomicity: a_position_may_go_back_with_what_the_commit_appends,
            atomicity: runs_of_one_input_follow_each_other,
            atomicity: positions_alone_can_be_committed,
            atomicity: nothing_at_all_can_be_committed,
            atomicity: an_opaque_position_reads_back_and_has_a_limit,
            atomicity: a_watermark_alone_can_be_appended,
            atomicity: a_watermark_travels_with_its_events,
            atomicity: rows_that_do_not_fit_the_topic_are_refused,
            atomicity: a_big_commit_over_many_partitions_is_whole,
            order: successors_of_a_refused_commit_are_refused,
            order: a_failure_stops_its_own_task_only,
            order: commits_of_a_task_take_effect_in_the_order_of_calls,
            order: commits_of_several_tasks_to_one_partition_keep_each_tasks_order,
            order: a_dropped_answer_does_not_undo_a_commit,
            ownership: a_restart_gives_a_greater_epoch_and_fences_the_old,
            ownership: a_task_that_nobody_joined_is_fenced,
            ownership: an_owner_is_fenced_after_it_left,
            ownership: a_revoked_task_commits_until_its_release,
            ownership: a_new_owner_goes_on_from_the_last_commit,
            ownership: a_second_instance_of_one_number_takes_over,
            reading: a_reader_sees_every_event_once_in_order,
            reading: a_reader_at_the_end_wakes,
            reading: a_reader_beyond_the_end_waits_for_it,
            reading: reading_begins_within_a_batch,
            reading: an_acknowledged_commit_is_visible_at_once,
            reading: the_position_at_the_end_is_the_end,
            reading: what_does_not_exist_is_named,
            tables: a_trimmed_table_forgets_what_was_before,
            tables: a_table_keeps_the_newest_row_of_each_key,
            tables: a_table_under_endless_updates_stays_small,
            tables: a_reader_in_the_middle_of_a_table_goes_on,
            tables: the_newest_row_of_a_key_stays_whatever_its_age,
            tables: a_tombstone_goes_when_it_is_read_and_old,
            tables: who_has_seen_a_row_sees_that_it_is_gone,
            tables: promises_in_a_table_are_kept,
            topics: creating_a_topic_again_changes_nothing,
            topics: an_incompatible_topic_is_refused_with_both_definitions,
            topics: a_column_added_is_null_in_old_events,
            topics: a_topic_without_partitions_is_refused,
            marks: marks_name_their_producer_and_stand_behind_its_rows,
            marks: a_reader_first_learns_what_was_promised_before_its_beginning,
            marks: promises_outlive_the_events_that_they_came_with,
            marks: a_reader_beyond_the_end_learns_promises_when_the_log_is_there,
            retention: what_was_trimmed_is_out_of_range,
            retention: trimming_ends_at_the_end,
            retention: what_a_consumer_has_not_read_stays,
            retention: what_every_consumer_has_read_goes_after_its_age,
            retention: a_full_backlog_refuses_sources_only,
            concurrency: readers_and_committers_at_once_agree,
            concurrency: owners_that_come_and_go_lose_and_repeat_nothing,
            durability: what_was_acknowledged_is_there_after_a_crash,
            durability: what_was_on_its_way_is_whole_or_gone_after_a_crash,
            durability: all_is_there_after_closing,
            durability: epochs_grow_over_a_restart,
            durability: topics_and_their_schemas_outlive_a_crash,
            durability: trimming_outlives_closing,
            durability: a_closed_log_refuses_commits,
            durability: many_restarts_in_a_row_keep_all,
        );
    };
    (@ $fixture:expr; $($file:ident: $rule:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                $crate::conformance::kit::within($crate::conformance::$file::$rule($fixture)).await;
            }
        )*
    };
}
