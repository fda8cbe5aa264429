fn main() {
    let seed = std::env::args().nth(1).unwrap().parse().unwrap();
    let r = bourse_sim::seeds::run(seed, true);
    println!("{}\n{:#?}", r.trace, r.violations);
}
