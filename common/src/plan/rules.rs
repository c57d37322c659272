//! Rules for single values of a plan: paths, names of variables, parameters.

use regex::{Regex, RegexBuilder};

use super::model::{Param, ParamType};

/// Variables that choose code to load, or where it is looked for: whoever sets one runs what he likes in the step.
const RESERVED: &[&str] = &[
    "PATH",
    "IFS",
    "ENV",
    "BASH_ENV",
    "BASHOPTS",
    "SHELLOPTS",
    "CDPATH",
    "GLOBIGNORE",
    "PS4",
    "PROMPT_COMMAND",
    "NODE_OPTIONS",
    "NODE_PATH",
    "GCONV_PATH",
    "HOSTALIASES",
    "LOCPATH",
    "NLSPATH",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "JAVA_TOOL_OPTIONS",
    "_JAVA_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "CLASSPATH",
    "NOTIFY_SOCKET",
    "CREDENTIALS_DIRECTORY",
];
const RESERVED_PREFIXES: &[&str] = &[
    "CONSIGN_",
    "LD_",
    "DYLD_",
    "BASH_FUNC_",
    "PYTHON",
    "PERL",
    "RUBY",
    "GIT_",
    "SSL_",
    "OPENSSL_",
    "GLIBC_",
    "MALLOC_",
    "NPM_CONFIG_",
    "npm_config_",
    "SYSTEMD_",
    "SUDO_",
    "LISTEN_",
];

/// A value that a parameter does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidParameter {
    #[error("{given:?} is not an integer of 64 bits")]
    NotAnInt { given: String },
    #[error("{given:?} is neither true nor false")]
    NotABool { given: String },
    #[error("{length} bytes are more than max_length, {max_length}")]
    TooLong { length: usize, max_length: usize },
    #[error("it does not match the pattern {}", in_a_line(pattern))]
    Pattern { pattern: String },
    #[error("it contains a NUL byte, which no environment can carry")]
    Nul,
}

impl Param {
    /// Whether `value` may be given to the parameter; the rules of its declaration.
    pub fn check(&self, value: &str) -> Result<(), InvalidParameter> {
        let given = || value.chars().take(80).collect();
        if value.len() > self.max_length {
            return Err(InvalidParameter::TooLong { length: value.len(), max_length: self.max_length });
        }
        if value.contains('\0') {
            return Err(InvalidParameter::Nul);
        }
        match self.kind {
            ParamType::Int if value.parse::<i64>().is_ok_and(|number| number.to_string() == value) => {}
            ParamType::Int => return Err(InvalidParameter::NotAnInt { given: given() }),
            ParamType::Bool if matches!(value, "true" | "false") => {}
            ParamType::Bool => return Err(InvalidParameter::NotABool { given: given() }),
            ParamType::String => {}
        }
        match &self.pattern {
            Some(pattern) if !pattern_of(pattern).is_ok_and(|regex| regex.is_match(value)) => {
                Err(InvalidParameter::Pattern { pattern: pattern.clone() })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A pattern as a refusal repeats it: its beginning, without what a terminal would act on.
fn in_a_line(pattern: &str) -> String {
    pattern.chars().take(200).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A pattern always speaks of the whole value.
pub(super) fn pattern_of(pattern: &str) -> Result<Regex, regex::Error> {
    // First by itself, so that an unbalanced parenthesis cannot reach outside the anchors.
    bounded(pattern)?;
    bounded(&format!("^(?:{pattern})$"))
}

/// A regular expression whose compiled form stays small.
pub(crate) fn bounded(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(1 << 20).nest_limit(50).build()
}

/// Why `path` is not a path below the release.
pub(super) fn relative_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > 4096 {
        return Err("must have 1 to 4096 bytes");
    }
    if path.starts_with('/') {
        return Err("must be relative to the release");
    }
    if path.chars().any(char::is_control) {
        return Err("must not contain control characters");
    }
    match path.split('/').any(|component| matches!(component, "" | "." | "..") || component.len() > 255) {
        true => Err("must have no empty, `.`, `..` or overlong component"),
        false => Ok(()),
    }
}

/// Why a step's environment may not have a variable of this name.
pub(super) fn variable(name: &str) -> Result<(), &'static str> {
    let first = name.bytes().next();
    if name.len() > 128
        || !first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        return Err("a variable's name is 1 to 128 letters, digits and '_', and begins with no digit");
    }
    let upper = name.to_ascii_uppercase();
    let reserved = RESERVED.contains(&upper.as_str())
        || RESERVED_PREFIXES.iter().any(|prefix| upper.starts_with(&prefix.to_ascii_uppercase()));
    match reserved {
        true => Err("it is reserved: consign or the system's loaders and shells give it a meaning"),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::model::Deliver, *};

    #[test]
    fn variables_that_load_code_are_refused() {
        for bad in [
            "PATH",
            "LD_PRELOAD",
            "BASH_ENV",
            "ENV",
            "IFS",
            "PYTHONPATH",
            "NODE_OPTIONS",
            "GIT_SSH_COMMAND",
            "SSL_CERT_FILE",
            "CONSIGN_APP",
            "path",
            "Ld_Preload",
            "1A",
            "",
            "A-B",
            "A=B",
        ] {
            assert!(variable(bad).is_err(), "{bad}");
        }
        for good in ["RAILS_ENV", "WORKERS", "_x", "DATABASE_URL"] {
            assert_eq!(variable(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn a_parameter_takes_what_it_declares() {
        let param = |kind, pattern: Option<&str>| Param {
            kind,
            default: None,
            secret: false,
            pattern: pattern.map(Into::into),
            max_length: 8,
            deliver: Deliver::Env,
        };
        assert_eq!(param(ParamType::Int, None).check("-7"), Ok(()));
        for bad in ["", "7.5", "+7", "07", "seven"] {
            assert!(param(ParamType::Int, None).check(bad).is_err(), "{bad}");
        }
        assert!(param(ParamType::Bool, None).check("yes").is_err());
        assert_eq!(param(ParamType::String, Some("a|b")).check("b"), Ok(()));
        assert!(param(ParamType::String, Some("a|b")).check("xb").is_err(), "the whole value must match");
        assert!(param(ParamType::String, None).check("123456789").is_err());
        assert!(param(ParamType::String, None).check("a\0").is_err());
        let long = format!("\t\n{}", "x".repeat(5000));
        let why = param(ParamType::String, Some(&long)).check("a").unwrap_err().to_string();
        assert!(why.len() < 300 && !why.contains(char::is_control), "{why:?}");
    }
}
