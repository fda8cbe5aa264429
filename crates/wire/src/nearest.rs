//! "Did you mean": the names nearest to one that does not exist.

/// The most names that are suggested.
pub const SUGGESTIONS_MAX: usize = 3;

/// Longer names are not compared: the distance takes time in the product of both lengths.
const COMPARED_BYTES_MAX: usize = 128;

/// Of `known`, those within a few edits of `given`, nearest first.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    if given.len() > COMPARED_BYTES_MAX {
        return Vec::new();
    }
    let edits_max = (given.chars().count() / 3).clamp(1, 4);
    let lower = given.to_lowercase();
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        .filter(|name| name.len().abs_diff(given.len()) <= 4 * edits_max)
        .map(|name| (strsim::osa_distance(&lower, &name.to_lowercase()), name))
        .filter(|(edits, _)| *edits <= edits_max)
        .collect();
    near.sort();
    near.dedup();
    // Names that are much further than the nearest are noise.
    let close = near.first().map_or(0, |(edits, _)| edits + 1);
    near.retain(|(edits, _)| *edits <= close);
    near.into_iter().take(SUGGESTIONS_MAX).map(|(_, name)| name).collect()
}

/// As a sentence; `None` if there is nothing near.
pub fn did_you_mean(given: &str, known: &[&str]) -> Option<String> {
    let near = nearest(given, known.iter().copied());
    (!near.is_empty()).then(|| format!("did you mean {}?", near.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_come_first() {
        let known = ["treedb.write", "treedb.read", "shop.write", "treedb.wrote"];
        assert_eq!(nearest("treedb.wirte", known), ["treedb.write", "treedb.wrote"]);
        assert_eq!(nearest("TREEDB.READ", known), ["treedb.read"]);
        assert!(nearest("zzz", known).is_empty());
        assert!(nearest(&"a".repeat(100_000), known).is_empty());
        assert_eq!(did_you_mean("shop.wrte", &known).unwrap(), "did you mean shop.write?");
    }
}
