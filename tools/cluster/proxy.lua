-- memcached's own proxy before the four servers of `cluster serve`, for a memcached built with --enable-proxy and its routelib:
--   memcached -p 22121 -o proxy_config=routelib,proxy_arg=tools/cluster/proxy.lua
pools{
  hearth = { backends = { "127.0.0.1:11211", "127.0.0.1:11212", "127.0.0.1:11213", "127.0.0.1:11214" } },
}
routes{
  default = route_direct{ child = "hearth" },
}
