from django.urls import path

from chat import views

urlpatterns = [
    path("", views.page),
    path("api/v1/health/", views.health),
    path("api/v1/auth/login/", views.LogIn.as_view()),
    path("api/v1/auth/ws-connection-token/", views.ConnectionToken.as_view()),
    path("api/v1/auth/sign-out-everywhere/", views.SignOutEverywhere.as_view()),
    path("api/v1/chat/<str:conversation_id>/", views.Chat.as_view()),
    path("api/v1/chat/<str:conversation_id>/clear/", views.Clear.as_view()),
]
