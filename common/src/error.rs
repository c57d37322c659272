//! Errors in one line. Our errors do not repeat their source in their own text; others' sometimes do.

use std::error::Error;

/// The error and its sources, outermost first; what an outer text holds already is not said twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn every_source_is_told_once() {
        let inner = Layer { text: "disk full", source: None };
        let repeated = Layer { text: "cannot write: disk full", source: Some(Box::new(inner)) };
        let outer = Layer { text: "publish failed", source: Some(Box::new(repeated)) };
        assert_eq!(chain(&outer), "publish failed: cannot write: disk full");
    }
}
