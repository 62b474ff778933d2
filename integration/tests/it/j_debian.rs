//! Work that people do: a Debian root filesystem, results equal to the same under runc.

use husk_integration::{
    bundle::Image,
    scenario::{same_as_runc, size},
};

#[test]
fn dpkg_perl_and_apt_answer_as_under_runc() {
    same_as_runc(
        Image::Debian,
        &[
            "sh",
            "-c",
            "dpkg -l | md5sum; dpkg -V 2>&1 | head; perl -e 'my %h; $h{$_ % 97} += $_ for 1..100000; print join(\",\", map {\"$_=$h{$_}\"} sort {$a<=>$b} keys %h), \"\\n\"' | md5sum; apt-get --version | head -1; apt-get check 2>&1 | tail -1; apt-cache policy perl-base 2>&1 | head -3",
        ],
        |_| {},
    );
}

#[test]
fn a_c_program_is_compiled_and_runs() {
    let program = "#include <stdio.h>\nint main(int n, char **v) { for (int i = 0; i < n; i++) puts(v[i]); return 3; }\n";
    let output = same_as_runc(
        Image::Debian,
        &[
            "sh",
            "-c",
            &format!("cd /tmp && cat > p.c <<'C'\n{program}C\ngcc -O2 -o p p.c && ./p one two; echo $?"),
        ],
        |_| {},
    );
    assert_eq!(output.stdout, "./p\none\ntwo\n3\n");
}

#[test]
fn twenty_thousand_files_go_into_a_tar_and_come_back() {
    let each: u32 = size(200, 4);
    let script = format!(
        "mkdir /t /u; cd /t; perl -e 'for my $d (1..100) {{ mkdir $d; for my $f (1..{each}) {{ open my $h, \">\", \"$d/$f\"; print $h \"$d/$f\\n\" x ($f % 7) }} }}'; \
         tar cf /all.tar .; tar xf /all.tar -C /u; diff -r /t /u && find /u -type f | wc -l; tar tf /all.tar | sort | md5sum"
    );
    let output = same_as_runc(Image::Debian, &["sh", "-ec", &script], |_| {});
    assert!(output.stdout.starts_with(&format!("{}\n", each * 100)), "{output:?}");
}
