//! The modules of a simulated grid: their names, the versions that nodes sell, the requirements that callers have.

use bourse_market::Lot;
use semver::{Version, VersionReq};

use crate::chance::Chance;

/// One module.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// What is sold of it, oldest version first.
    pub lots: Vec<Lot>,
    /// What is wanted of it.
    pub requirements: Vec<VersionReq>,
}

/// All modules of a grid.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// By their numbers.
    pub modules: Vec<Module>,
}

/// A wish: a module's number, and the number of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wish {
    /// The module.
    pub module: u32,
    /// The requirement.
    pub requirement: u32,
}

impl Catalog {
    /// So many modules, each with the same versions and requirements.
    pub fn new(modules: usize) -> Self {
        let version = |major, minor| Version::new(major, minor, 0);
        let versions = [version(1, 0), version(1, 1), version(2, 0)];
        let wanted =
            ["*", "^1", "^1.1", "^2"].map(|text| VersionReq::parse(text).expect("it is a requirement"));
        let module = |number: usize| {
            let name = format!("m{number}");
            let lot = |version: &Version| Lot { module: name.clone(), version: version.clone() };
            Module { lots: versions.iter().map(lot).collect(), requirements: wanted.to_vec(), name }
        };
        Self { modules: (0..modules).map(module).collect() }
    }

    /// The module's name and the requirement of a wish.
    pub fn wish(&self, wish: Wish) -> (&str, &VersionReq) {
        let module = &self.modules[wish.module as usize];
        (&module.name, &module.requirements[wish.requirement as usize])
    }

    /// A wish that something sold fits.
    pub fn wish_for(&self, lot: &Lot, chance: &mut Chance) -> Option<Wish> {
        let small = |n: usize| u32::try_from(n).expect("there are few");
        let module = small(self.modules.iter().position(|module| module.name == lot.module)?);
        let all = 0..small(self.modules[module as usize].requirements.len());
        let wishes = all.map(|requirement| Wish { module, requirement });
        let fitting: Vec<Wish> = wishes.filter(|wish| self.fits(*wish, lot)).collect();
        Some(chance.pick(&fitting))
    }

    /// Something sold is what is wished for.
    pub fn fits(&self, wish: Wish, lot: &Lot) -> bool {
        let (name, requirement) = self.wish(wish);
        name == lot.module && requirement.matches(&lot.version)
    }
}
