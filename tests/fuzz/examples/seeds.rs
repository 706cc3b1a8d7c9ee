//! Writes what the fuzzer starts from to `fuzz/corpus`: `cargo run -p sleuth-fuzz-targets --example
//! seeds`. What it found on top stands there too, under the names that libFuzzer gives.
#![expect(clippy::expect_used, reason = "a tool may stop where it is wrong")]

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use sleuth_core::{
    Aggregation, ByteSpan, CacheUse, Context, Covered, ErrorClass, Failure, Group, ImageSource,
    Options, PolicyReward, PolicyTokens, Realignment, Reason, ScoreRequest, Scored, SentenceReward,
    SentenceRule, Timing, TokenReward,
};
use sleuth_fuzz_targets::toys;
use sleuth_proto::v1;
use sleuth_wire::{
    Place, Rows, encode_context, encode_item, encode_policy, invalid, scores, valid,
};

/// Texts that tokenizers, spans and labels have trouble with.
const TEXTS: [&str; 24] = [
    "a",
    " ",
    "\n\n\n",
    "A red cat sits on a wooden bench.",
    "  two  spaces \t and a tab ",
    "ab ab.\nab\n\n<bos>",
    "<eos><image><unk> [MASK] <loc0001>",
    "<0x41><0x0A> \u{2581}a",
    "e\u{301}e\u{301}\u{327} \u{e9}",
    "\u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467} \u{1F1E9}\u{1F1EA}",
    "\u{0}\u{7f}\u{80}\u{a0}\u{ad}\u{feff}",
    "\u{202e}right to left\u{202c} \u{5d0}\u{5d1}",
    "\u{fb01}\u{2460}\u{ff21}\u{1d400} \u{212b}",
    "\u{ac00}\u{1100}\u{1161}\u{11a8}",
    "\u{4e2d}\u{6587}\u{3002}\u{65e5}\u{672c}\u{8a9e}\u{ff01}",
    "\u{130}I\u{131}i \u{df}\u{1e9e}",
    "\u{10ffff}\u{fffd}\u{e000}",
    "z\u{300}\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}\u{307}\u{308}",
    "Is it? No! It's 3.14... \"Yes.\"",
    "\u{2028}\u{2029}\u{85}\r\n\r",
    "\u{c4}a\u{1F600}ab\u{1F600}",
    "<<<<>>>><b<b",
    "os eo s o e ab \u{2581}\u{2581}",
    "0123456789 0x1F 1e-9",
];

fn main() -> io::Result<()> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden");
    write(&fuzz.join("image_decode"), &images(&golden.join("images"))?)?;
    write(&fuzz.join("response_text"), &texts())?;
    write(&fuzz.join("settlement"), &arrivals())?;
    write(&fuzz.join("realignment"), &policies(&golden.join("policy_tokens.json"))?)?;
    write(&fuzz.join("tokenizer_json"), &tokenizers())?;
    write(&fuzz.join("data_lines"), &data())?;
    write(&fuzz.join("wire"), &messages())
}

fn write(folder: &Path, seeds: &[Vec<u8>]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (index, seed) in seeds.iter().enumerate() {
        fs::write(folder.join(format!("seed_{index:02}")), seed)?;
    }
    Ok(())
}

/// The golden images of at most 1 KiB, and their first halves.
fn images(folder: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut paths: Vec<_> =
        fs::read_dir(folder)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    paths.sort();
    paths.retain(|p| p.extension().is_some_and(|e| e == "png" || e == "jpg"));
    let files: Vec<Vec<u8>> = paths.iter().map(fs::read).collect::<Result<_, _>>()?;
    let small = files.into_iter().filter(|bytes| bytes.len() <= 1024);
    Ok(small.chain(webp()).collect())
}

/// A lossless and a lossy file, of one chunk and of an extended header.
fn webp() -> Vec<Vec<u8>> {
    let lossless =
        b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\x07\0";
    let lossy = b"RIFF\x24\0\0\0WEBPVP8 \x18\0\0\0\x30\x01\0\x9d\x01\x2a\x01\0\x01\0\x02\0\x34\x25\xa4\0\x03\x70\0\xfe\xfb\x94\0\0";
    let extended = b"RIFF\x2c\0\0\0WEBPVP8X\x0a\0\0\0\x08\0\0\0\0\0\0\0\0\0VP8L\x0d\0\0\0\x2f\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\x07\0";
    vec![lossless.to_vec(), lossy.to_vec(), extended.to_vec()]
}

fn texts() -> Vec<Vec<u8>> {
    TEXTS.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// Each text with two ways to cut it; and bytes that are no UTF-8.
fn arrivals() -> Vec<Vec<u8>> {
    let cut = |seed: u8, bytes: &[u8]| [&[seed], bytes].concat();
    let whole = TEXTS.iter().zip(0..).flat_map(|(text, n): (_, u8)| {
        [cut(n * 11, text.as_bytes()), cut(255 - n * 7, text.as_bytes())]
    });
    let bad: [&[u8]; 4] = [b"ab\xf0\x9f", b"\xc3", b"a\xff\n", b"\xed\xa0\x80"];
    whole.chain(bad.map(|bytes| cut(3, bytes))).collect()
}

/// Tokens of real tokenizers of short texts, with made up tokens of a reward model.
fn policies(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let cases: Vec<serde_json::Value> = serde_json::from_slice(&fs::read(path)?)?;
    let short = |case: &&serde_json::Value| case["text"].as_str().is_some_and(|t| t.len() <= 32);
    let chosen: Vec<_> = cases.iter().filter(short).step_by(4).take(32).collect();
    Ok(chosen.into_iter().map(policy).collect())
}

fn policy(case: &serde_json::Value) -> Vec<u8> {
    let text = case["text"].as_str().unwrap_or_default();
    let pieces: Vec<&str> = case["pieces"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(serde_json::Value::as_str)
        .collect();
    let ends: Vec<u64> = case["ends"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(serde_json::Value::as_u64)
        .collect();
    let mut out = vec![1, text.len() as u8];
    out.extend(text.bytes());
    out.push(pieces.len() as u8);
    for piece in pieces {
        out.push(piece.len() as u8);
        out.extend(piece.bytes());
    }
    out.push(ends.len() as u8);
    out.extend(ends.iter().flat_map(|&end| (end as u16).to_le_bytes()));
    for (n, logit) in
        (0..text.len() / 2).zip([0.5_f32, -2.0, 40.0, -200.0, 1e-30].into_iter().cycle())
    {
        out.push([0b1010, 0b1111, 0b0000, 0b0101][n % 4]);
        out.extend(logit.to_le_bytes());
    }
    out
}

/// The toys, and smaller files of every kind of model and of most parts.
fn tokenizers() -> Vec<Vec<u8>> {
    let parts = [
        r#""normalizer":{"type":"NFKC"}"#,
        r#""normalizer":{"type":"Lowercase"},"pre_tokenizer":{"type":"Whitespace"}"#,
        r#""normalizer":{"type":"Replace","pattern":{"Regex":" +"},"content":"▁"}"#,
        r#""normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"StripAccents"}]}"#,
        r#""normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true}"#,
        r#""pre_tokenizer":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}"#,
        r#""pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true}"#,
        r#""pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\s+|[a-z]"},"behavior":"Isolated","invert":false}"#,
        r#""pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},{"type":"Punctuation","behavior":"MergedWithPrevious"}]}"#,
        r#""decoder":{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}"#,
        r#""post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<bos>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}}],"special_tokens":{"<bos>":{"id":"<bos>","ids":[1],"tokens":["<bos>"]}}}"#,
        r#""truncation":{"direction":"Right","max_length":4,"strategy":"LongestFirst","stride":0},"padding":{"strategy":{"Fixed":9},"direction":"Left","pad_to_multiple_of":null,"pad_id":0,"pad_type_id":0,"pad_token":"<unk>"}"#,
    ];
    let models = [
        r#"{"type":"BPE","dropout":null,"unk_token":"<unk>","continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":true,"byte_fallback":true,"ignore_merges":false,"vocab":{"<unk>":0,"<bos>":1,"<eos>":2,"<image>":3,"a":4,"r":5,"e":6,"d":7,"re":8,"red":9},"merges":["r e",["re","d"]]}"#,
        r#"{"type":"Unigram","unk_id":0,"byte_fallback":false,"vocab":[["<unk>",0],["<bos>",0],["<eos>",0],["<image>",0],["a",-1.5],["red",-2],["▁",-3]]}"#,
        r###"{"type":"WordPiece","unk_token":"<unk>","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":{"<unk>":0,"<bos>":1,"<eos>":2,"<image>":3,"a":4,"re":5,"##d":6}}"###,
        r#"{"type":"WordLevel","unk_token":"<unk>","vocab":{"<unk>":0,"<bos>":1,"<eos>":2,"<image>":3,"red":4}}"#,
    ];
    let own = r#"[{"id":1,"content":"<bos>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},{"id":3,"content":"<image>","single_word":true,"lstrip":true,"rstrip":true,"normalized":true,"special":false}]"#;
    let made = (0..parts.len()).map(|n| {
        let (part, model) = (parts[n], models[n % models.len()]);
        format!(r#"{{"version":"1.0","added_tokens":{own},{part},"model":{model}}}"#)
    });
    let preprocessors = [
        r#"{"size":{"height":16,"width":16}}"#,
        r#"{"do_resize":true,"do_rescale":true,"rescale_factor":0.00392156862745098,"do_normalize":true,"image_mean":[0.5,0.5,0.5],"image_std":[0.5,0.5,0.5],"resample":3,"size":{"height":224,"width":224},"image_seq_length":256}"#,
        r#"{"size":224,"resample":2}"#,
    ];
    let whole = [toys::bpe(), toys::unigram(), toys::fallback()];
    made.chain(preprocessors.map(String::from)).chain(whole).map(String::into_bytes).collect()
}

/// A good line of each text, with labels; and lines that break each rule.
fn data() -> Vec<Vec<u8>> {
    let line = |(n, text): (usize, &&str)| {
        let cut = text.char_indices().nth(1).map_or(text.len(), |(at, _)| at);
        let labels = serde_json::json!([
            {"start": 0, "end": cut, "good": n % 2 == 0, "taxonomy": "counting", "source": "scenes"},
            {"start": 0, "end": text.len(), "good": true},
        ]);
        let record = serde_json::json!({"id": n.to_string(), "image": "images/a.png",
            "prompt": "Describe.", "response": text, "labels": labels, "group_id": "g",
            "split": "train"});
        format!("{record}\n")
    };
    let good: Vec<String> = TEXTS.iter().enumerate().map(line).collect();
    let bad = [
        r#"{"id":"","image":"a.png","prompt":"","response":"x"}"#,
        r#"{"id":"a","image":"../a.png","prompt":"","response":"x"}"#,
        r#"{"id":"a","image":"/a.png","prompt":"","response":"x"}"#,
        r#"{"id":"a","image":"c:\\a.png","prompt":"","response":"x"}"#,
        r#"{"id":"a","image":"a.png","prompt":"","response":""}"#,
        r#"{"id":"a","image":"a.png","prompt":"","response":"aé","labels":[{"start":1,"end":2,"good":false}]}"#,
        r#"{"id":"a","image":"a.png","prompt":"","response":"aé","labels":[{"start":1,"end":1,"good":false}]}"#,
        r#"{"id":"a","image":"a.png","prompt":"","response":"aé","labels":[{"start":1,"end":9,"good":false}]}"#,
        r#"{"id":"a","image":"a.png","prompt":"","response":"\ud83d\ude00\u0000","labels":[{"start":0,"end":4,"good":false}],"more":[{}]}"#,
        r#"{"id":"a","image":"a.png","prompt":"","response":"\ud83d"}"#,
        r#"{"id":1,"image":null}"#,
        "{\"id\"",
        "[[[[[[[[",
        "\n \r\n\t\n",
    ];
    let all = good.concat();
    good.into_iter()
        .chain(bad.map(String::from))
        .chain([all, bad.join("\n")])
        .map(String::into_bytes)
        .collect()
}

fn messages() -> Vec<Vec<u8>> {
    let key = || Some(v1::Key { item_id: "item".to_owned(), attempt: 2 });
    let mut out = Vec::new();
    for request in requests() {
        let policy = request.policy.clone();
        let text = Bytes::from(request.response.clone().into_bytes());
        out.push(encode_context(key(), request.context.clone()).encode_to_vec());
        out.push(encode_item(key(), request).encode_to_vec());
        let policy = policy.map(encode_policy);
        out.push(v1::Append { key: key(), offset: 7, text, policy }.encode_to_vec());
    }
    let traced = v1::Context {
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        tracestate: "a=b".to_owned(),
        timeout: "-1.5s".parse().ok(),
        ..encode_context(None, Context::new(ImageSource::Data(Bytes::from_static(b"x"))))
    };
    out.push(traced.encode_to_vec());
    out.extend(key().map(|key| key.encode_to_vec()));
    let header = v1::ImageHeader { blake3: Bytes::from_static(&[7; 32]), size_bytes: 9 };
    let kind = Some(v1::put_image_request::Kind::Header(header));
    out.push(v1::PutImageRequest { kind }.encode_to_vec());
    for scored in results() {
        let rows: Vec<v1::Scores> = scores(key().as_ref(), Rows::of(&scored), 0, 2).collect();
        let verdict = valid(key(), &scored);
        out.extend(rows.iter().map(v1::Scores::encode_to_vec));
        out.push(verdict.encode_to_vec());
        let mut results: Vec<v1::ItemResult> =
            rows.into_iter().map(|r| v1::ItemResult { scores: Some(r), verdict: None }).collect();
        results.push(v1::ItemResult { scores: None, verdict: Some(verdict) });
        out.push(v1::ScoreBatchResponse { results }.encode_to_vec());
    }
    let failure = Failure::new(ErrorClass::Overload, Reason::WORKER_FAILED, "no").at("response");
    out.push(invalid(key(), &failure, Place::Batch(3)).encode_to_vec());
    out
}

fn requests() -> Vec<ScoreRequest<Bytes>> {
    let plain = ScoreRequest::new(Bytes::from_static(b"\x89PNG"), "A red cat.");
    let mut context = Context::new(ImageSource::Digest([9; 32]));
    context.prompt = Some("What is it?".to_owned());
    context.adapter = Some("b".to_owned());
    context.required_version = Some("v".to_owned());
    context.options = Options {
        aggregation: Aggregation::Min,
        sentences: SentenceRule::Unicode,
        threshold: Some(0.25),
        realignment: Realignment::Product,
    };
    context.timeout = Some(Duration::from_millis(1500));
    context.priority = -3;
    context.group =
        Some(Group { id: "g".to_owned(), size: Some(4), expected_response_tokens: None });
    context.idempotency_key = Some("k".to_owned());
    let policy = Some(PolicyTokens::Ends(vec![1, 5, 5]));
    let full = ScoreRequest { context, response: "caf\u{e9}".to_owned(), policy };
    let pieces = Some(PolicyTokens::Pieces(vec![b"A red".to_vec(), b" cat.".to_vec()]));
    vec![plain.clone(), full, ScoreRequest { policy: pieces, ..plain }]
}

fn results() -> [Scored; 2] {
    let span = |start, end| ByteSpan::try_new(start, end).expect("in order");
    let tokens: Vec<TokenReward> = [(0, 2, 1.5), (2, 6, -0.5), (6, 10, 9.0)]
        .map(|(start, end, logit)| TokenReward::from_logit(span(start, end), logit))
        .to_vec();
    let covered = Some(Covered { reward: 0.5, logit: 0.0 });
    let policy = vec![
        PolicyReward { span: span(0, 5), covered, coverage: 1.0 },
        PolicyReward { span: span(5, 10), covered, coverage: 0.25 },
        PolicyReward { span: span(10, 10), covered: None, coverage: 0.0 },
    ];
    let of_model = Scored {
        tokens,
        policy: None,
        sentences: vec![SentenceReward { span: span(0, 10), reward: 0.5 }],
        flagged: vec![span(2, 6)],
        reward: 0.75,
        aggregation: Aggregation::MeanLog,
        version: "v".to_owned(),
        batch_invariant: true,
        timing: Timing { queue: Duration::from_micros(5), ..Timing::default() },
        cache: CacheUse { prefix_positions_reused: 4, ..CacheUse::default() },
        duplicates_joined: 1,
    };
    let of_policy = Scored { tokens: Vec::new(), policy: Some(policy), ..of_model.clone() };
    [of_model, of_policy]
}
