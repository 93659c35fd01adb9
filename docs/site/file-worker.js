// Browsers start no workers for pages opened from a folder. Search then runs in a hidden frame.
if (location.protocol === "file:") {
  const script = (frame, source) =>
    new Promise((resolve, reject) => {
      const element = frame.document.createElement("script");
      element.src = source;
      element.onload = resolve;
      element.onerror = reject;
      frame.document.head.appendChild(element);
    });

  window.Worker = class extends EventTarget {
    constructor(source) {
      super();
      const element = document.createElement("iframe");
      element.hidden = true;
      document.body.appendChild(element);
      this.frame = element.contentWindow;
      this.frame.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.frame.importScripts = (...sources) =>
        sources.reduce((before, next) => before.then(() => script(this.frame, next)), Promise.resolve());
      this.ready = script(this.frame, new URL(source, location).href);
    }

    postMessage(data) {
      this.ready.then(() => this.frame.dispatchEvent(new this.frame.MessageEvent("message", { data })));
    }
  };
}
