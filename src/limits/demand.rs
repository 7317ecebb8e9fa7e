//! How much an action asks of a bucket or a window.

/// Most actions count as one. What a reply takes is only known at its end, so that a message needs something to be left,
/// and its reply is charged whatever is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Demand {
    /// What must be left; 0 = the action is never refused.
    pub needed: u64,
    /// What is taken if the action is not refused.
    pub taken: u64,
    /// Whether more can be taken than is left. A bucket owes at most what it holds.
    pub has_debt: bool,
}

impl Demand {
    pub const ACTION: Self = Self { needed: 1, taken: 1, has_debt: false };
    /// Takes nothing.
    pub const CHECK: Self = Self { needed: 1, taken: 0, has_debt: true };

    pub fn charge(count: u64) -> Self {
        Self { needed: 0, taken: count, has_debt: true }
    }
}
