//! Formats of header values that differ from request to request, each compiled when it is needed first.
//!
//! Routes name few of them, and tables come and go: what is kept does not depend on which table a text is from.
//! Never here: what a format means (`access`). Held by each worker; used by `headers`.

use std::{cell::RefCell, rc::Rc};

use hashbrown::HashMap;

use crate::{access::Format, limits::FORMATS_MAX};

/// What was compiled; none: it names an operator that is not offered, as `table::headers` has told.
#[derive(Debug, Default)]
pub(crate) struct Formats(RefCell<HashMap<Box<str>, Option<Rc<Format>>, foldhash::fast::RandomState>>);

impl Formats {
    /// The format of a text.
    pub(super) fn of(&self, text: &str) -> Option<Rc<Format>> {
        let mut known = self.0.borrow_mut();
        if let Some(format) = known.get(text) {
            return format.clone();
        }
        if known.len() >= FORMATS_MAX {
            known.clear();
        }
        let format = Format::text(Some(text)).ok().map(Rc::new);
        known.insert(text.into(), format.clone());
        format
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_compiled_once_and_not_all_are_kept() {
        let formats = Formats::default();
        let first = formats.of("%PROTOCOL%").unwrap();
        assert!(Rc::ptr_eq(&first, &formats.of("%PROTOCOL%").unwrap()));
        assert_eq!((formats.of("%NOPE%"), formats.of("%NOPE%")), (None, None));
        for at in 0..FORMATS_MAX {
            assert!(formats.of(&format!("x{at}")).is_some());
        }
        assert!(formats.0.borrow().len() <= FORMATS_MAX);
        assert_eq!(formats.of("%PROTOCOL%"), Some(first));
    }
}
