"""A name server that knows one answer."""
import socket
import sys

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
while True:
    query, who = server.recvfrom(4096)
    end = query.index(b"\0", 12) + 5
    head = query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + query[12:end]
    server.sendto(head + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([198, 51, 100, 7]), who)
