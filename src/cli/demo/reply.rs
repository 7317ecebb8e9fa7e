//! What the demo's worker says: always the same to the same message, so that a test can expect it.

use std::time::Duration;

/// As fast as a model that is in a good mood.
const PACE: Duration = Duration::from_millis(45);
const SLOW: Duration = Duration::from_millis(450);

/// How much of a message is quoted back.
const QUOTE_CHARS: usize = 60;
const MAX_COUNT: usize = 200;

/// One piece of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A word with the space after it, said `pause` after the one before.
    Word { text: String, pause: Duration },
    /// The regular end.
    End,
    /// The worker dies.
    Die,
}

/// The reply to `message` of the user called `name`.
pub fn to(message: &str, name: &str) -> Vec<Step> {
    let mut words = message.split_whitespace();
    match words.next() {
        Some("/die") => spoken("I have a bad feeling about this sent", PACE, Step::Die),
        Some("/slow") => spoken("Slowly, slowly, the tide comes in.", SLOW, Step::End),
        Some("/count") => spoken(&count(words.next()), PACE, Step::End),
        Some("/help") => spoken(HELP, PACE, Step::End),
        _ => spoken(&conversation(message, name), PACE, Step::End),
    }
}

const HELP: &str = "Try /count 30 for a long reply, /slow for a patient one, /die to see what happens \
    when a worker dies in the middle, and /reject to see a message refused.";

fn spoken(text: &str, pause: Duration, end: Step) -> Vec<Step> {
    let words = text.split_inclusive(' ').map(|word| Step::Word { text: word.to_owned(), pause });
    words.chain([end]).collect()
}

fn count(to: Option<&str>) -> String {
    let to = to.and_then(|to| to.parse().ok()).unwrap_or(20).clamp(1, MAX_COUNT);
    let numbers: Vec<String> = (1..=to).map(|number| number.to_string()).collect();
    numbers.join(" ")
}

fn conversation(message: &str, name: &str) -> String {
    let lower = message.to_lowercase();
    let said = |word: &str| lower.split(|c: char| !c.is_alphanumeric()).any(|w| w == word);
    let letters = || message.chars().filter(|c| c.is_alphabetic());
    if ["hi", "hello", "hey", "hola", "salut", "hallo"].into_iter().any(said) {
        format!(
            "Hello {name}! I am the worker behind the gate. I never see your socket: you sent a frame, \
             I got an HTTP request, and these words are my answer's event stream. Say anything, or /help."
        )
    } else if said("bye") || said("goodbye") {
        format!("Goodbye, {name}. The tide goes out, the gate stays open.")
    } else if said("thanks") || said("thank") {
        "You are welcome. Relaying is the easy part; the listening is all yours.".to_owned()
    } else if message.trim_end().ends_with('?') {
        QUESTIONS[sum(message) % QUESTIONS.len()].to_owned()
    } else if letters().count() > 3 && letters().all(char::is_uppercase) {
        "No need to shout: every frame arrives at the same volume.".to_owned()
    } else {
        about(message)
    }
}

const QUESTIONS: [&str; 4] = [
    "A good question. I have streamed it through every word I know, and the answer is: probably.",
    "If I were a larger model I would now be wrong at length. As I am a small one: ask the sea.",
    "Yes. Or no. But whichever it is, every tab of this conversation hears it at the same moment.",
    "Forty-two, give or take a tide.",
];

/// Something true about the message.
fn about(message: &str) -> String {
    let quote: String = message.chars().take(QUOTE_CHARS).collect();
    let dots = if quote.len() < message.len() { "…" } else { "" };
    let words = message.split_whitespace().count();
    let plural = if words == 1 { "word" } else { "words" };
    let backwards: String = quote.chars().rev().collect();
    match sum(message) % 3 {
        0 => format!(
            "“{quote}{dots}”: {words} {plural}, and every one of them made it through the gate."
        ),
        1 => format!(
            "You said “{quote}{dots}”. Seen from the other side of the gate: “{backwards}”."
        ),
        _ => format!(
            "I have thought about “{quote}{dots}” for {} milliseconds, which is long for a worker of my size.",
            message.len()
        ),
    }
}

fn sum(message: &str) -> usize {
    message.bytes().map(usize::from).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(steps: &[Step]) -> String {
        let word = |step: &Step| match step {
            Step::Word { text, .. } => text.clone(),
            _ => String::new(),
        };
        steps.iter().map(word).collect()
    }

    #[test]
    fn every_message_has_one_reply_that_ends() {
        for message in ["hello", "why?", "LOUD", "ünï", "/help", "/slow", "/count", "x", "🙂", " "]
        {
            let steps = to(message, "ana");
            assert_eq!(steps, to(message, "ana"), "{message}");
            assert_eq!(steps.last(), Some(&Step::End), "{message}");
            assert!(!text(&steps).is_empty(), "{message}");
        }
        assert_eq!(to("/die", "ana").last(), Some(&Step::Die));
    }

    #[test]
    fn replies_are_bounded() {
        assert!(text(&to(&"é".repeat(10_000), "ana")).len() < 1000);
        assert_eq!(to("/count 999999", "ana").len(), MAX_COUNT + 1);
        assert_eq!(text(&to("/count 3", "ana")), "1 2 3");
    }
}
