//! Chat messages, as vLLM and OpenAI have them: an image, what was asked, and the answer to score.

use serde_json::Value;

use super::fields::{Fields, expected, text};
use super::picture::Pictures;
use super::problem::Problem;
use super::sample::Sample;

/// What messages hold, in order.
#[derive(Default)]
struct Read {
    images: Vec<(String, String)>,
    /// Texts before the answer, a line each.
    prompt: Vec<String>,
    answer: String,
}

/// The last message is the assistant's and is scored. What stands before it is the prompt; one part
/// of it is the image.
pub(super) fn sample(
    messages: Vec<Value>,
    path: &str,
    pictures: &mut Pictures,
) -> Result<Sample, Problem> {
    let mut read = Read::default();
    let last = messages.len().checked_sub(1);
    let last = last.ok_or_else(|| Problem::field(path, format!("`{path}` is empty")))?;
    for (n, message) in messages.into_iter().enumerate() {
        take(Fields::of(message, &format!("{path}[{n}]"))?, n == last, &mut read)?;
    }
    let mut images = read.images.into_iter();
    let (Some((place, image)), None) = (images.next(), images.next()) else {
        let message = format!(
            "`{path}` must hold one image, as a part {{\"type\": \"image_url\", \"image_url\": \
             {{\"url\": \"data:image/png;base64,...\"}}}} of the user's message"
        );
        return Err(Problem::field(path, message));
    };
    let picture = pictures.read(&image).map_err(|failure| Problem::of(&failure).at(place))?;
    let prompt = read.prompt.join("\n");
    let prompt = (!prompt.is_empty()).then_some(prompt);
    Ok(Sample { picture, prompt, response: read.answer })
}

fn take(mut message: Fields, is_last: bool, read: &mut Read) -> Result<(), Problem> {
    let (role_at, content_at) = (message.path("role"), message.path("content"));
    let role = message.text("role")?;
    let role = role.ok_or_else(|| Problem::field(&role_at, format!("`{role_at}` is missing")))?;
    if is_last && role != "assistant" {
        let message = format!(
            "`{role_at}` must be `assistant`: the last message is the response that is scored"
        );
        return Err(Problem::field(role_at, message));
    }
    let mut texts = Vec::new();
    match message.take("content") {
        None => {}
        Some(Value::String(text)) => texts.push(text),
        Some(Value::Array(parts)) => {
            for (n, value) in parts.into_iter().enumerate() {
                let at = format!("{content_at}[{n}]");
                match part(value, &at)? {
                    Part::Text(text) => texts.push(text),
                    Part::Image(..) if role == "assistant" => {
                        let message = format!("`{at}` is an image in an assistant's message");
                        return Err(Problem::field(at, message));
                    }
                    Part::Image(place, image) => read.images.push((place, image)),
                }
            }
        }
        Some(other) => return Err(expected(&content_at, "a string or a list of parts", &other)),
    }
    if is_last {
        read.answer = texts.concat();
    } else {
        read.prompt.extend(texts.into_iter().filter(|text| !text.is_empty()));
    }
    Ok(())
}

/// A part of a message.
enum Part {
    Text(String),
    /// Where it stands, and what stands there.
    Image(String, String),
}

fn part(value: Value, path: &str) -> Result<Part, Problem> {
    // As some templates have it.
    if let Value::String(text) = value {
        return Ok(Part::Text(text));
    }
    let mut part = Fields::of(value, path)?;
    let kind = part.text("type")?.unwrap_or_default();
    let missing = |at: &str| Problem::field(at, format!("`{at}` is missing"));
    match kind.as_str() {
        "text" => {
            let at = part.path("text");
            part.text("text")?.map(Part::Text).ok_or_else(|| missing(&at))
        }
        "image_url" => {
            let at = part.path("image_url");
            match part.take("image_url").ok_or_else(|| missing(&at))? {
                Value::String(url) => Ok(Part::Image(at, url)),
                object => {
                    let mut object = Fields::of(object, &at)?;
                    let at = object.path("url");
                    let url = object.text("url")?.ok_or_else(|| missing(&at))?;
                    Ok(Part::Image(at, url))
                }
            }
        }
        "image" => {
            let at = part.path("image");
            let image = part.take("image").ok_or_else(|| missing(&at))?;
            text(image, &at).map(|image| Part::Image(at, image))
        }
        _ => {
            let at = part.path("type");
            let message = format!("`{at}` must be text or image_url");
            Err(Problem::field(at, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const IMAGE: &str = "data:image/png;base64,AAAA";

    fn read(messages: Value) -> Result<Sample, Problem> {
        let Value::Array(messages) = messages else { panic!("a list") };
        sample(messages, "messages", &mut Pictures::new(64))
    }

    #[test]
    fn the_last_message_is_the_response_and_the_rest_the_prompt() {
        let image = json!({"type": "image_url", "image_url": {"url": IMAGE}});
        let sample = read(json!([
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "A "}, {"type": "text", "text": "ring."}]},
        ]))
        .unwrap();
        assert_eq!(sample.prompt.as_deref(), Some("Be short.\nWhat is it?"));
        assert_eq!(sample.response, "A ring.");
        assert_eq!(sample.picture.blake3, *blake3::hash(&[0, 0, 0]).as_bytes());
        for image in [
            json!({"type": "image_url", "image_url": IMAGE}),
            json!({"type": "image", "image": IMAGE}),
        ] {
            let sample = read(json!([
                {"role": "user", "content": [image]},
                {"role": "assistant", "content": "A ring."},
            ]));
            assert_eq!(sample.unwrap().prompt, None);
        }
    }

    #[test]
    fn faults_name_their_place() {
        let user = |content: Value| json!([{"role": "user", "content": content}, {"role": "assistant", "content": "A"}]);
        let url = |url: Value| user(json!([{"type": "image_url", "image_url": {"url": url}}]));
        for (messages, param) in [
            (json!([]), "messages"),
            (json!([3]), "messages[0]"),
            (json!([{"content": "x"}]), "messages[0].role"),
            (json!([{"role": "user", "content": "x"}]), "messages[0].role"),
            (user(json!("no image")), "messages"),
            (user(json!(3)), "messages[0].content"),
            (user(json!([{"type": "video"}])), "messages[0].content[0].type"),
            (user(json!([{"type": "text"}])), "messages[0].content[0].text"),
            (user(json!([{"type": "image_url"}])), "messages[0].content[0].image_url"),
            (url(json!(null)), "messages[0].content[0].image_url.url"),
            (url(json!(3)), "messages[0].content[0].image_url.url"),
            (url(json!("https://host/a.png")), "messages[0].content[0].image_url.url"),
            (
                json!([{"role": "assistant", "content": [{"type": "image", "image": IMAGE}]}]),
                "messages[0].content[0]",
            ),
        ] {
            let problem = read(messages.clone()).unwrap_err();
            assert_eq!((problem.told().0, problem.told().1), (400, Some(param)), "{messages}");
        }
    }
}
