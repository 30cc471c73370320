package dev.lazaret.rogue;

import dev.lazaret.target.FhirServer;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;

/**
 * What an attacker's code in the server's own process can do: a class that a tampered image layer puts in front of the FHIR
 * server.
 *
 * <p>It opens port {@code ROGUE_PORT} (8081) before the FHIR server begins to start, so that it can be asked in each phase,
 * and makes one attack for each {@code GET /attack/NAME}: mount, shell, unshare, ptrace, io_uring. The answer is
 * {@code {"attack", "worked", "errno", "detail"}}: {@code worked} only when the attack reached its aim, {@code errno} of the
 * first step that failed, {@code detail} which step that was. Everything it changes, it changes in what the demonstration made for
 * it; mounts are undone and children ended before the answer.
 */
public final class Rogue {

  private static final int MAX_REQUEST = 4096;

  static {
    System.load("/app/librogue.so");
  }

  private Rogue() {}

  /** Each returns "" when it worked, or "ERRNO STEP" with the first step that failed. */
  private static native String mountAndChange(String device, String directory, String file, String content);

  private static native String shell();

  private static native String unshare();

  private static native String ptrace();

  private static native String ioUring();

  private record Outcome(boolean worked, int errno, String detail) {}

  public static void main(String[] args) throws Exception {
    String port = System.getenv("ROGUE_PORT");
    ServerSocket listener = new ServerSocket(port == null ? 8081 : Integer.parseInt(port));
    Thread thread = new Thread(() -> serve(listener), "rogue");
    thread.setDaemon(true);
    thread.start();
    FhirServer.main(args);
  }

  private static void serve(ServerSocket listener) {
    while (true) {
      try (Socket socket = listener.accept()) {
        answer(socket);
      } catch (IOException | RuntimeException | Error e) {
        // a call that is denied inside the JVM comes out as any of them; the next attack is asked for all the same
        System.err.println("rogue: " + e);
      }
    }
  }

  private static void answer(Socket socket) throws IOException {
    BufferedReader in = new BufferedReader(new InputStreamReader(socket.getInputStream(), StandardCharsets.US_ASCII));
    String first = in.readLine();
    int read = 0;
    for (String line = in.readLine(); line != null && !line.isEmpty() && read < MAX_REQUEST; line = in.readLine()) {
      read += line.length();
    }
    String[] words = first == null ? new String[0] : first.split(" ");
    if (words.length < 2 || !words[0].equals("GET") || !words[1].startsWith("/attack/")) {
      respond(socket, "404 Not Found", "{\"error\": \"GET /attack/NAME\"}");
      return;
    }
    String[] target = words[1].substring("/attack/".length()).split("\\?", 2);
    Outcome outcome = attack(target[0], query(target.length > 1 ? target[1] : ""));
    if (outcome == null) {
      respond(socket, "404 Not Found", "{\"error\": \"no such attack\"}");
      return;
    }
    respond(socket, "200 OK", "{\"attack\": " + quote(target[0]) + ", \"worked\": " + outcome.worked + ", \"errno\": "
        + outcome.errno + ", \"detail\": " + quote(outcome.detail) + "}");
  }

  private static Outcome attack(String name, Map<String, String> query) {
    return switch (name) {
      case "mount" -> outcome(mountAndChange(query.getOrDefault("device", "/dev/loop0"), "/tmp/rogue-disk",
          query.getOrDefault("file", "hosts-file"), query.getOrDefault("content", "changed from inside the container\n")));
      case "shell" -> outcome(shell());
      case "unshare" -> outcome(unshare());
      case "ptrace" -> outcome(ptrace());
      case "io_uring" -> outcome(ioUring());
      default -> null;
    };
  }

  private static Outcome outcome(String failure) {
    if (failure.isEmpty()) {
      return new Outcome(true, 0, "");
    }
    String[] parts = failure.split(" ", 2);
    return new Outcome(false, Integer.parseInt(parts[0]), parts[1]);
  }

  private static Map<String, String> query(String text) {
    Map<String, String> values = new HashMap<>();
    for (String pair : text.split("&")) {
      String[] parts = pair.split("=", 2);
      if (parts.length == 2) {
        values.put(parts[0], URLDecoder.decode(parts[1], StandardCharsets.UTF_8));
      }
    }
    return values;
  }

  private static String quote(String text) {
    StringBuilder json = new StringBuilder("\"");
    for (char c : text.toCharArray()) {
      if (c == '"' || c == '\\') {
        json.append('\\').append(c);
      } else if (c < 0x20) {
        json.append(String.format("\\u%04x", (int) c));
      } else {
        json.append(c);
      }
    }
    return json.append('"').toString();
  }

  private static void respond(Socket socket, String status, String body) throws IOException {
    byte[] bytes = (body + "\n").getBytes(StandardCharsets.UTF_8);
    OutputStream out = socket.getOutputStream();
    out.write(("HTTP/1.1 " + status + "\r\nContent-Type: application/json\r\nContent-Length: " + bytes.length
        + "\r\nConnection: close\r\n\r\n").getBytes(StandardCharsets.US_ASCII));
    out.write(bytes);
    out.flush();
  }
}
