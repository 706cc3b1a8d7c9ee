use std::collections::BTreeSet;
use std::fs;

use clap::{Args as _, Command, FromArgMatches as _};

use super::keys::{self, Kind};
use super::layers::Fault;
use super::*;

fn flags(arguments: &[&str]) -> Flags {
    let command = Flags::augment_args(Command::new("serve").no_binary_name(true));
    Flags::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

fn faults(text: &str, pairs: &[(&str, &str)], arguments: &[&str]) -> Vec<Fault> {
    let file = file(text);
    resolve_from(Some(file.path()), &variables(pairs), &flags(arguments)).unwrap_err()
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_tables_defaults_are_those_of_the_code() {
    let resolved = resolve_from(None, &[], &Flags::default()).unwrap();
    let settings = resolved.settings;
    let code = ServerSettings::default();
    assert_eq!(format!("{:?}", settings.server), format!("{code:?}"));
    assert_eq!(settings.service, ServiceSettings::default());
    assert_eq!(settings.log, LogSettings::default());
    assert_eq!((settings.engine.prefix_cache, settings.engine.vision_cache), (None, None));
}

#[test]
fn every_key_has_names_of_its_own_and_a_default_that_it_allows() {
    let (mut names, mut named, mut variables) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for key in keys::all() {
        assert!(names.insert(key.name) && named.insert(key.flag), "{}", key.name);
        assert!(variables.insert(key.variable()), "{}", key.variable());
        assert!(key.name.split('.').count() == 2 && !key.about.is_empty(), "{}", key.name);
        let mut settings = Settings::unset();
        let allowed = key.default.is_none_or(|text| (key.set)(&mut settings, text).is_some());
        assert!(allowed, "{}", key.name);
        assert!((key.set)(&mut settings, "\u{0}").is_none() || key.kind == Kind::Text);
        // Or it would be taken for a variable of Kubernetes.
        assert!(!key.variable().contains("_PORT") && !key.variable().contains("_SERVICE"));
    }
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = file("[engine]\nworkers = 2\nthreads = 3\n[admission]\nmax_wait_seconds = 0.5\n");
    let variables = variables(&[
        ("SLEUTH_ENGINE_WORKERS", "4"),
        ("SLEUTH_ENGINE_THREADS", "5"),
        ("SLEUTH_LOG", "debug"),
    ]);
    let resolved =
        resolve_from(Some(file.path()), &variables, &flags(&["--workers", "6", "--log-json"]))
            .unwrap();
    let settings = &resolved.settings;
    assert_eq!((settings.engine.workers, settings.engine.threads), (6, Some(5)));
    assert_eq!(settings.service.admission.max_wait, std::time::Duration::from_millis(500));
    assert_eq!(settings.log.filter, "debug");
    let origin = |name: &str| {
        resolved.effective.iter().find(|e| e.key.name == name).unwrap().origin.to_string()
    };
    assert_eq!(origin("engine.workers"), "flag --workers");
    assert_eq!(origin("engine.threads"), "environment SLEUTH_ENGINE_THREADS");
    assert_eq!(origin("admission.max_wait_seconds"), format!("{} line 5", file.path().display()));
    assert_eq!(origin("engine.kv"), "default");
}

#[test]
fn every_fault_is_told_with_its_value_its_place_and_what_is_allowed() {
    let faults = faults(
        "[engine]\nworkers = 0\nthreads = \"two\"\n\n[limits]\nmax_connection = 3\n[tls]\nkey = \"k\"\n",
        &[("SLEUTH_ENGINE_KV", "f8"), ("SLEUTH_ENGINE_THREAD", "sleuth_secret")],
        &["--tau", "inf", "--max-wait", "-1"],
    );
    let lines = lines(&faults);
    for says in [
        "engine.workers = 0 (",
        "line 2): must be a whole number, 1 to 1024",
        "engine.threads = string (",
        "limits.max_connection (",
        "line 6): there is no such setting; did you mean limits.max_connections?",
        "engine.kv = f8 (environment SLEUTH_ENGINE_KV): must be f32 or f16",
        "SLEUTH_ENGINE_THREAD (environment SLEUTH_ENGINE_THREAD): there is no such setting; \
         did you mean SLEUTH_ENGINE_THREADS?",
        "model.tau = inf (flag --tau): must be a finite number",
        "admission.max_wait_seconds = -1 (flag --max-wait): must be seconds, 0 to 86400",
        "tls.key = k (",
        "needs tls.certificate",
    ] {
        assert!(lines.contains(says), "{says}\n{lines}");
    }
    assert_eq!(faults.len(), 8, "{lines}");
    assert!(!lines.contains("sleuth_secret"), "a value of an unknown key may be anything");
}

#[test]
fn a_file_that_is_no_toml_is_told_without_its_text() {
    let broken = faults("[engine]\nworkers = \nsecret = hunter2\n", &[], &[]);
    let lines = lines(&broken);
    assert!(lines.contains("line 2: ") && !lines.contains("hunter2"), "{lines}");
    let missing = resolve_from(Some(Path::new("/no/such/file")), &[], &Flags::default());
    assert!(self::lines(&missing.unwrap_err()).starts_with("/no/such/file: "));
    let outside = faults("workers = 2\n", &[], &[]);
    assert!(self::lines(&outside).contains("workers ("));
}

#[test]
fn what_would_be_open_takes_a_word() {
    let faults = |arguments: &[&str]| {
        let resolved = resolve_from(None, &[], &flags(arguments));
        resolved.map_or_else(|faults| lines(&faults), |_| String::new())
    };
    let open = ["--listen", "0.0.0.0:0"];
    assert!(faults(&open).contains("--insecure"));
    assert!(faults(&[&open[..], &["--credentials", "c"]].concat()).contains("tokens would be"));
    assert_eq!(faults(&[&open[..], &["--insecure"]].concat()), "");
    let tls = ["--tls-certificate", "c", "--tls-key", "k"];
    assert_eq!(faults(&[&open[..], &tls].concat()), "");
    assert!(faults(&["--admin-listen", "0.0.0.0:1"]).contains("--admin-insecure"));
    assert_eq!(faults(&["--admin-listen", "0.0.0.0:1", "--admin-insecure"]), "");
    assert_eq!(faults(&["--admin-listen", "off"]), "");
    assert!(faults(&["--http-listen", "0.0.0.0:1"]).contains("--http-insecure"));
    assert_eq!(faults(&["--http-listen", "0.0.0.0:1", "--http-insecure"]), "");
    assert_eq!(faults(&[&["--http-listen", "0.0.0.0:1"][..], &tls].concat()), "");
    assert!(faults(&["--http-listen", "127.0.0.1:50051"]).contains("another listener too"));
    assert!(faults(&["--http-listen", "127.0.0.1:50052"]).contains("another listener too"));
    assert!(faults(&["--http-listen", "on"]).contains("an address and a port, or `off`"));
    assert!(faults(&["--tenant-header", "x-t", "--credentials", "c"]).contains("tenants come"));
    assert!(faults(&["--admin-listen", "127.0.0.1:50051"]).contains("server.listen too"));
    assert!(faults(&["--log-filter", "sleuth=loud=very"]).contains("log directives"));
    assert!(faults(&["--adapter", "a", "--no-adapter"]).contains("exclude each other"));
    assert!(faults(&["--tls-client-ca", "c"]).contains("needs tls.certificate"));
}

#[test]
fn variables_of_kubernetes_are_left_alone() {
    let variables = variables(&[
        ("SLEUTH_SERVICE_HOST", "10.0.0.1"),
        ("SLEUTH_SERVICE_PORT_GRPC", "50051"),
        ("SLEUTH_PORT", "tcp://10.0.0.1:50051"),
        ("SLEUTH_ADMIN_PORT_50052_TCP_ADDR", "10.0.0.1"),
    ]);
    resolve_from(None, &variables, &Flags::default()).unwrap();
}

#[test]
fn what_is_printed_reads_back_as_the_same_settings() {
    let first = resolve_from(None, &[], &flags(&["--workers", "3", "--model", "a \"b\""])).unwrap();
    let printed = toml(&first.effective, true);
    let file = file(&printed);
    let second = resolve_from(Some(file.path()), &[], &Flags::default()).unwrap();
    assert_eq!(format!("{:?}", first.settings), format!("{:?}", second.settings));
    let json = json(&first.effective);
    assert_eq!(json["engine.workers"]["value"], 3);
    assert_eq!(json["engine.workers"]["origin"], "flag --workers");
    assert_eq!(json["engine.threads"]["value"], serde_json::Value::Null);
}

#[test]
fn passwords_in_addresses_are_not_shown() {
    assert_eq!(values::shown("http://u:p@host:1/x@y"), "http://[redacted]@host:1/x@y");
    assert_eq!(values::shown("http://host/a@b"), "http://host/a@b");
    let faults = faults("", &[("SLEUTH_SERVER_LISTEN", "http://user:hunter2@host")], &[]);
    assert!(!lines(&faults).contains("hunter2"));
}

#[test]
fn the_page_of_the_documentation_is_what_the_program_prints() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md");
    let written = fs::read_to_string(page).unwrap();
    assert!(written == markdown(), "run: sleuth config docs >docs/settings.md");
}
