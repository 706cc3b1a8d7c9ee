use sleuth_chat::{ChatClient, ChatError, Completion, Message, Request, Usage};

use super::task::{cleaned, sized, yes_or_no};
use super::{Dropped, Edit, Outcome, prompts};
use crate::data::Record;

/// A checker's whole answer: one word, and what a model puts before its end.
const CHECK_TOKENS: u32 = 8;
/// A token is at least so many bytes of English, on average; a longer reply is no small edit.
const BYTES_PER_TOKEN: usize = 2;
/// Room for short answers.
const FEWEST_TOKENS: u32 = 64;

/// Edits texts and checks the edits, by asking a chat model.
#[derive(Debug)]
pub struct Perturber {
    client: ChatClient,
    settings: Settings,
}

/// How the model samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Of the edits, 0 to 2; checks are greedy.
    pub temperature: f32,
    /// Passed on to the endpoint.
    pub seed: u64,
}

// === impl Perturber ===

impl Perturber {
    /// Asks through `client`.
    pub const fn new(client: ChatClient, settings: Settings) -> Self {
        Self { client, settings }
    }

    /// The model asked.
    pub fn model(&self) -> &str {
        self.client.model()
    }

    pub(super) const fn settings(&self) -> Settings {
        self.settings
    }

    /// One edit of a true text, checked. `known` is what else is known of the image. The cost
    /// counts also where the result is an error.
    pub(super) async fn perturb(
        &self,
        record: &Record,
        edit: Edit,
        known: &str,
        cost: &mut Usage,
    ) -> Result<Outcome, ChatError> {
        let old = &record.response;
        let most = (old.len() / BYTES_PER_TOKEN) as u32 + FEWEST_TOKENS;
        let asked = prompts::edit(edit, &record.prompt, old);
        let reply = self.ask(asked, most, self.settings.temperature, cost).await?;
        if reply.is_cut {
            return Ok(Outcome::Dropped(Dropped::Cut));
        }
        let new = cleaned(&reply.text, old);
        if let Err(dropped) = sized(old, new) {
            return Ok(Outcome::Dropped(dropped));
        }
        let check = prompts::check(edit, &record.prompt, old, new, known);
        let said = self.ask(check.messages, CHECK_TOKENS, 0.0, cost).await?;
        Ok(match yes_or_no(&said.text) {
            None => Outcome::Dropped(Dropped::CheckerUnclear),
            Some(answer) if answer == check.keeps => Outcome::Kept(new.to_owned()),
            Some(_) => Outcome::Dropped(match edit {
                Edit::Caption(_) => Dropped::NotDifferent,
                Edit::Answer => Dropped::StillValid,
            }),
        })
    }

    async fn ask(
        &self,
        messages: Vec<Message>,
        max_tokens: u32,
        temperature: f32,
        cost: &mut Usage,
    ) -> Result<Completion, ChatError> {
        let request = Request { messages, max_tokens, temperature, seed: self.settings.seed };
        let completion = self.client.complete(&request).await?;
        *cost += completion.usage;
        Ok(completion)
    }
}
