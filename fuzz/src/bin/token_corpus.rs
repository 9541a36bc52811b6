//! Prints the token corpus: `make corpus` writes it to `interop/corpus/tokens.json`.

fn main() {
    print!("{}", fuzz::tokens::document());
}
