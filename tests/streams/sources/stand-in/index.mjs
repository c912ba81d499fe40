// In the place of the server that the suites would start: the node that runs already, at STREAMS_URL.
export class DurableStreamTestServer {
  url = process.env.STREAMS_URL;

  start() {
    return Promise.resolve(this.url);
  }

  stop() {
    return Promise.resolve();
  }

  clear() {}
}
