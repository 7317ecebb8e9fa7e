//! The answers of a reply that has several, and which of them have ended.

use super::escaped::Escaped;
use super::item::{End, Failure, FinishReason};

/// The most answers of one reply. Further ones are left out.
const MAX_CHOICES: usize = 128;

#[derive(Default)]
pub(super) struct Choices {
    seen: Vec<Choice>,
}

struct Choice {
    index: u64,
    has_refused: bool,
    has_called_tool: bool,
    finish: Option<Escaped<'static>>,
}

impl Choices {
    /// Whether more of this choice can come. It counts as seen from then on.
    pub fn is_running(&mut self, index: u64) -> bool {
        self.choice(index).is_some_and(|choice| choice.finish.is_none())
    }

    /// Whether the choice is one of those that are read. It counts as seen from then on.
    pub fn may_continue(&mut self, index: u64) -> bool {
        self.choice(index).is_some()
    }

    /// The choice has a part of a refusal.
    pub fn refused(&mut self, index: u64) {
        if let Some(choice) = self.choice(index) {
            choice.has_refused = true;
        }
    }

    pub fn called_tool(&mut self, index: u64) {
        if let Some(choice) = self.choice(index) {
            choice.has_called_tool = true;
        }
    }

    /// The choice has ended, for this reason in the API's word. Of several the last one counts.
    pub fn finish(&mut self, index: u64, reason: Escaped<'_>) {
        if let Some(choice) = self.choice(index) {
            choice.finish = Some(reason.into_owned());
        }
    }

    /// Whether there is a choice, and all that were seen have ended.
    pub fn all_finished(&self) -> bool {
        !self.seen.is_empty() && self.seen.iter().all(|choice| choice.finish.is_some())
    }

    /// The end of the reply: that of its first choice.
    pub fn end(&self) -> End<'static> {
        let Some(first) = self.seen.iter().min_by_key(|choice| choice.index) else {
            return End::completed(Escaped::default());
        };
        let raw = first.finish.clone().unwrap_or_default();
        // OpenRouter and Mistral say so that the model's server has failed.
        if raw.as_str() == "error" {
            return End::Failed(Failure::of_finish(raw.as_str()));
        }
        let reason = FinishReason::of(raw.as_str());
        let reason = match reason {
            _ if first.has_refused => FinishReason::Refusal,
            // Not every API has a word for it.
            FinishReason::Stop if first.has_called_tool => FinishReason::ToolCalls,
            reason => reason,
        };
        End::Completed { reason, raw }
    }

    /// `None` = there are too many.
    fn choice(&mut self, index: u64) -> Option<&mut Choice> {
        let found = self.seen.iter().position(|choice| choice.index == index);
        let at = found.unwrap_or(self.seen.len());
        if found.is_none() {
            if at == MAX_CHOICES {
                return None;
            }
            let new = Choice { index, has_refused: false, has_called_tool: false, finish: None };
            self.seen.push(new);
        }
        self.seen.get_mut(at)
    }
}
