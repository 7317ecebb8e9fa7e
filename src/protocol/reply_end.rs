//! Which reply a terminal event ends.

/// The reply that a terminal event ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyEnd {
    /// The one of this task.
    Named(String),
    /// The event names no task.
    Unnamed,
}

impl ReplyEnd {
    pub fn task_id(&self) -> Option<&str> {
        match self {
            Self::Named(task_id) => Some(task_id),
            Self::Unnamed => None,
        }
    }
}
