//! Scans: pages of the store merged with what is not in the store yet.

use bourse_durable::Finished;

use crate::world::World;

/// Rows a/1 … a/9, each its own value.
fn nine() -> World {
    let mut w = World::new();
    let names: Vec<String> = (1..10).map(|n| format!("a/{n}")).collect();
    let rows: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), &name[2..])).collect();
    w.put(100, &rows);
    w
}

#[test]
fn a_scope_is_listed_without_those_that_start_alike() {
    let mut w = World::new();
    // All of these could lie in one partition; only two are of scope a.
    for (n, name) in ["a", "a/x", "a-b", "a-b/x", "ab", "a.c/y"].into_iter().enumerate() {
        w.put(n as u64, &[(name, "")]);
    }
    let everything: Vec<_> = w.store.rows.clone().into_iter().collect();
    let home = crate::world::key("a").home().partition();
    for ((_, row), value) in everything {
        w.store.rows.insert((home, row), value);
    }
    let (all, page) = (w.scan(10, "a", "", 0), w.scan(11, "a", "", 1));
    w.serve();
    assert_eq!((w.rows(all), w.rows(page)), ("a= a/x=".to_owned(), "a= …".to_owned()));
    let (rest, below) = (w.scan(12, "a", "a", 0), w.scan(13, "a/", "", 0));
    w.serve();
    assert_eq!((w.rows(rest), w.rows(below)), ("a/x=".to_owned(), "a/x=".to_owned()));
}

#[test]
fn own_writes_and_deletes_are_merged_and_pages_still_filled() {
    let mut w = nine();
    for n in [2, 3, 4, 5] {
        w.delete(1, &format!("a/{n}"));
    }
    w.write(1, "a/7", "seven");
    w.write(1, "a/75", "new");
    let page = w.scan(1, "a/", "", 4);
    w.serve();
    assert_eq!(w.rows(page), "a/1=1 a/6=6 a/7=seven a/75=new …");
    let rest = w.scan(1, "a/", "a/75", 4);
    w.serve();
    assert_eq!(w.rows(rest), "a/8=8 a/9=9");
}

#[test]
fn more_is_not_said_of_deleted_rows() {
    let mut w = nine();
    for n in 4..10 {
        w.delete(1, &format!("a/{n}"));
    }
    let page = w.scan(1, "a/", "", 3);
    w.serve();
    assert_eq!(w.rows(page), "a/1=1 a/2=2 a/3=3");
}

#[test]
fn pending_writes_and_those_of_lower_layers_are_seen() {
    let mut w = nine();
    w.write(2, "a/25", "pending");
    w.delete(2, "a/3");
    w.finish(2);
    w.write(1, "a/1", "parent");
    w.delete(1, "a/2");
    w.nest(3, 1);
    w.write(3, "a/2", "child");
    let page = w.scan(3, "a/", "", 4);
    w.serve_reads();
    assert_eq!(w.rows(page), "a/1=parent a/2=child a/25=pending a/4=4 …");
}

#[test]
fn phantoms_are_conflicts_within_what_was_seen() {
    // A page of two of a/1 … a/9 has seen what lies up to a/3, which made it say that there is more.
    for (name, expected) in
        [("a/15", Finished::Conflict), ("a/3", Finished::Conflict), ("a/35", Finished::Done)]
    {
        for delete in [false, true] {
            let mut w = nine();
            w.scan(1, "a/", "", 2);
            w.serve();
            w.write(1, "a", "sum");
            if delete {
                w.delete(2, name)
            } else {
                w.write(2, name, "phantom")
            }
            w.finish(2);
            let finish = w.finish(1);
            w.serve();
            assert_eq!(w.finished(finish), expected, "{name}");
        }
    }
}

#[test]
fn siblings_see_each_others_phantoms() {
    let mut w = nine();
    w.write(1, "a", "parent");
    for n in [2, 3] {
        w.nest(n, 1);
        w.scan(n, "a/", "", 0);
        w.serve();
        w.write(n, &format!("a/{n}0"), "counted");
    }
    let (first, second) = (w.finish(2), w.finish(3));
    assert_eq!((w.finished(first), w.finished(second)), (Finished::Done, Finished::Conflict));
}

#[test]
fn a_page_is_bounded_in_bytes() {
    let mut w = World::new();
    let large = "x".repeat(5 << 20);
    w.put(1, &[("a/1", &large), ("a/2", &large), ("a/3", "small")]);
    let page = w.scan(2, "a/", "", 0);
    w.serve();
    let page = w.page(page);
    assert_eq!((page.rows.len(), page.more), (1, true));
    let rest = w.scan(2, "a/", "a/1", 0);
    w.serve();
    assert_eq!(w.page(rest).rows.len(), 2);
}

#[test]
fn nothing_after_the_end() {
    let mut w = nine();
    let page = w.scan(1, "a/", "b", 0);
    w.serve();
    assert_eq!(w.rows(page), "");
}
