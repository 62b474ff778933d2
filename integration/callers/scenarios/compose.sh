# A project of three parts that find each other by name: a database, a web server in front of it, and a client. The
# caller's script gives `compose_command WORDS...`. The database is Python's SQLite behind
# HTTP, in an image made of this machine's own Python.

# Once a run of the script: the program, its library and the shared libraries that both name.
python_image() {
    $C image inspect python >/dev/null 2>&1 && return
    local program library
    program=$(realpath "$(command -v python3)")
    library=/usr/lib/${program##*/}
    {
        echo "$program"
        find "$library" -type f ! -path '*/test/*' ! -path '*/ensurepip/*' ! -path '*/idlelib/*' ! -name '*.a'
        ldd "$program" "$library"/lib-dynload/*.so 2>/dev/null | grep -oE '/[^ ]+\.so[^ ]*'
    } | sort -u | tar -C / -c --dereference --transform 's,^usr/sbin/,,' -T - 2>/dev/null >$W/python.tar
    tar -C "$BUSYBOX" -rf $W/python.tar .
    $C import $W/python.tar python >/dev/null
}
compose_project() {
    cat >$W/database.py <<'END'
import http.server, sqlite3
rows = sqlite3.connect("/data/rows.db", check_same_thread=False)
rows.execute("create table if not exists rows (word text)")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = "".join("%d %s\n" % row for row in rows.execute("select rowid, word from rows order by rowid")).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def do_POST(self):
        word = self.rfile.read(int(self.headers["content-length"])).decode()
        with rows:
            rows.execute("insert into rows values (?)", (word,))
        self.do_GET()
http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
END
    mkdir -p $W/www/cgi-bin
    cat >$W/www/cgi-bin/rows <<'END'
#!/bin/sh
case $REQUEST_METHOD in
POST) answer=$(wget -q -O - --post-data "$(head -c $CONTENT_LENGTH)" http://database:8000/) ;;
*) answer=$(wget -q -O - http://database:8000/) ;;
esac || { printf 'Status: 502 Bad Gateway\r\n\r\n'; exit; }
printf 'content-type: text/plain\r\n\r\n'
echo "$answer"
END
    chmod +x $W/www/cgi-bin/rows
    cat >$W/compose.yaml <<END
name: $N
services:
  database:
    image: python
    ${COMPOSE_RUNTIME}
    command: [$(basename $(realpath $(command -v python3))), /database.py]
    volumes: ["$W/database.py:/database.py:ro", "rows:/data"]
    stop_grace_period: 1s
  web:
    image: busybox
    ${COMPOSE_RUNTIME}
    command: [httpd, -f, -p, "80", -h, /www]
    volumes: ["$W/www:/www:ro"]
    ports: ["127.0.0.1:7482:80"]
    depends_on: [database]
    stop_grace_period: 1s
  client:
    image: busybox
    ${COMPOSE_RUNTIME}
    depends_on: [web]
    command:
      - sh
      - -c
      - for word in one two; do until wget -q -O /tmp/answer --post-data \$\$word http://web/cgi-bin/rows; do sleep 0.3; done; done; cat /tmp/answer; echo finished
volumes:
  rows: {}
END
}
compose() {
    python_image
    compose_project
    compose_command -f $W/compose.yaml up -d >&2
    until_true "$C logs $N-client-1 | grep finished"
    $C logs $N-client-1
    curl -s http://127.0.0.1:7482/cgi-bin/rows
    $C wait $N-client-1
    compose_command -f $W/compose.yaml exec -T web nslookup -type=a database 2>&1 | grep -c '^Name'
    compose_command -f $W/compose.yaml restart database >&2
    until_true "curl -sf http://127.0.0.1:7482/cgi-bin/rows | grep two"
    curl -s http://127.0.0.1:7482/cgi-bin/rows
    compose_command -f $W/compose.yaml down -v >&2
    $C ps -aq | wc -l
}
