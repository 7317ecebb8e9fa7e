//! Facts about messages that are relayed once, and about the replies to them.

use metrics::counter;
use tracing::warn;

/// A message that had been relayed before was answered and not relayed again.
pub fn duplicate_caught() {
    counter!("tidegate_messages_total", "outcome" => "duplicate").increment(1);
}

/// A generation is relayed and not tracked: as many as can be are tracked already.
pub fn not_tracked() {
    counter!("tidegate_generations_total", "outcome" => "not_tracked").increment(1);
}

/// Generations whose node is gone, and which this node looks after now.
pub fn taken_over(count: usize) {
    if count > 0 {
        counter!("tidegate_generations_taken_over_total").increment(count as u64);
        warn!(event = "generations_taken_over", count, "a node is gone; this one has taken over");
    }
}

/// Another node believed this one dead and took a generation over.
pub fn lost_to_another_node(task_id: &str) {
    warn!(
        event = "generation_lost_to_another_node",
        task_id, "another node believed this one dead"
    );
}

/// A cancelled generation's worker could not be told.
pub fn worker_not_told(task_id: &str) {
    warn!(
        event = "worker_not_told",
        task_id, "the worker of a cancelled generation could not be told"
    );
}

/// A second terminal event of a task that had ended was delivered to nobody.
pub fn second_end_dropped() {
    counter!("tidegate_publications_total", "outcome" => "duplicate_terminal").increment(1);
}

/// An upstream took a message, and the engine could not be told: a repeat will be relayed again.
pub fn answer_not_kept(task_id: &str) {
    counter!("tidegate_message_answers_not_kept_total").increment(1);
    warn!(
        event = "message_answer_not_kept",
        task_id,
        "the engine could not be told of a relayed message; a repeat would be relayed again"
    );
}
