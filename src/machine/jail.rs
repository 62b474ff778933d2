pub struct Jail;
