//! The nearest right name for a wrong one. Pure.

/// ` (did you mean NAME?)` with the nearest of `right`, or nothing where none is near.
pub fn did_you_mean<'a>(wrong: &str, right: impl Iterator<Item = &'a str>) -> String {
    nearest(wrong, right).map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
}

/// The nearest of `right`: at most a third of its letters are others.
pub fn nearest<'a>(wrong: &str, right: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = wrong.to_ascii_lowercase();
    right
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_ascii_lowercase()), name))
        .filter(|(distance, name)| *distance <= name.chars().count().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_offered_and_a_far_one_is_not() {
        let check = |wrong: &str, want: Option<&str>| assert_eq!(nearest(wrong, ["notes", "tags", "id"].into_iter()), want, "{wrong}");
        check("note", Some("notes"));
        check("NTOES", Some("notes"));
        check("ids", Some("id"));
        check("person", None);
        assert_eq!(did_you_mean("tag", ["tags"].into_iter()), " (did you mean tags?)");
    }
}
