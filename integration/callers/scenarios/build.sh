# Images made by a Dockerfile whose steps run in containers of the runtime. The caller's script gives `build_image TAG DIR`.

build() {
    mkdir -p $W/context; echo copied >$W/context/file
    cat >$W/context/Dockerfile <<'END'
FROM busybox
COPY file /from-context
RUN echo made >/file && id -u >>/file && mkdir /work && chown user /work && uname -r >/kernel
USER user
WORKDIR /work
RUN id -un >mine && ln -s mine link
ENV A=b
CMD ["sh", "-c", "cat /file /from-context link; stat -c '%U %a' mine; id -un; echo $A; cat /kernel"]
END
    build_image made:$N $W/context >&2 || echo "status $?"
    run --rm made:$N >$W/said
    head -n -1 $W/said
    # The steps ran in a guest: its kernel is not the host's.
    case $(tail -n 1 $W/said) in $(uname -r)) echo runc ;; *) echo "not the host's kernel" ;; esac | grep -c "$([ $RUNTIME = runc ] && echo runc || echo not)"
    $C rmi made:$N >/dev/null
}
build_with_buildah() { BUILDER=buildah build; }
